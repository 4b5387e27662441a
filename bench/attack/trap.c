/* SPDX-License-Identifier: MIT */
#include "bench/attack/trap.h"

#if defined(__x86_64__)
#include <assert.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#define TRAP_FLAG 0x100ll

static struct trap {
    unsigned char *page; /* NULL: not armed */
    unsigned at, accesses;
    trap_move_fn *move;
    void *ctx;
    struct sigaction before_segv, before_trap;
} trap;

static void step_flag(void *context, bool on)
{
    greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];
    *flags = on ? *flags | TRAP_FLAG : *flags & ~TRAP_FLAG;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const unsigned char *at = info->si_addr;
    if (!trap.page || at < trap.page || at >= trap.page + PAGE_BYTES) {
        sigaction(signal, &trap.before_segv, NULL); /* a fault of the program: again, and its end */
        return;
    }
    trap.accesses++;
    mprotect(trap.page, PAGE_BYTES, PROT_READ | PROT_WRITE);
    step_flag(context, true);
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    step_flag(context, false);
    if (trap.accesses == trap.at)
        trap.move(trap.ctx);
    if (trap.accesses < trap.at)
        mprotect(trap.page, PAGE_BYTES, PROT_NONE);
}

bool trap_works(void)
{
    return true;
}

void trap_arm(unsigned char *page, unsigned at, trap_move_fn *move, void *ctx)
{
    const struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    const struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    assert(!trap.page && at > 0);
    trap = (struct trap){.page = page, .at = at, .move = move, .ctx = ctx};
    sigaction(SIGSEGV, &fault, &trap.before_segv);
    sigaction(SIGTRAP, &step, &trap.before_trap);
    mprotect(page, PAGE_BYTES, PROT_NONE);
}

unsigned trap_disarm(void)
{
    mprotect(trap.page, PAGE_BYTES, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &trap.before_segv, NULL);
    sigaction(SIGTRAP, &trap.before_trap, NULL);
    trap.page = NULL;
    return trap.accesses;
}
#else
bool trap_works(void)
{
    return false;
}

void trap_arm(unsigned char *page, unsigned at, trap_move_fn *move, void *ctx)
{
    (void)page, (void)at, (void)move, (void)ctx;
}

unsigned trap_disarm(void)
{
    return 0;
}
#endif
