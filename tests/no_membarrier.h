/* SPDX-License-Identifier: MIT */
/* tests/no_membarrier.h: a process whose kernel has no membarrier(2), or whose filter forbids it. */
#ifndef TESTS_NO_MEMBARRIER_H
#define TESTS_NO_MEMBARRIER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "base/membarrier.h"

/* For this process and what it starts, from here on; false: that could not be done. */
static inline bool membarrier_forbid(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {ARRAY_SIZE(code), code};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) &&
           !membarrier_register();
}

#endif
