/* SPDX-License-Identifier: MIT */
/* The grant map against a guest that moves at the worst moment.
 *
 * Three instruments. A stepper runs a map under the processor's single-step trap and is the guest between two chosen
 * instructions, every pair in turn, so each window between check and use is hit and not left to luck. Random sequences
 * of both sides are held against a model that knows nothing of active entries' workings. Two threads race for real,
 * over one mapping, so that ThreadSanitizer sees both sides' accesses meet.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <cmocka.h>

#include "grant/gntmap.h"
#include "tests/grant_world.h"
#include "tests/tool.h"

#define GFN      0x100 /* eight frames, shared for writing */
#define GFN_RO   0x200 /* four frames, shared for reading */
#define UNSHARED 0x999

static int setup(void **state)
{
    struct grant_world *w = malloc(sizeof(*w));
    gworld_open(w);
    gworld_share(w, GFN, 8, false);
    gworld_share(w, GFN_RO, 4, true);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct grant_world *w = *state;
    assert_int_equal(gntmap_mapped(w->map), 0);
    assert_int_equal(frametable_pinned(w->frames), 0);
    gworld_close(w);
    free(w);
    return 0;
}

/* ---- the stepper ---- */

#if defined(__x86_64__)
#include <x86gprintrin.h>

#define TRAP_FLAG 0x100ull

static struct stepper {
    unsigned step, at; /* the guest moves before instruction `at`, or before each */
    bool each, moved;
    void (*guest)(struct grant_world *w);
    struct grant_world *w;
} stepper;

static void on_trap(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    if (stepper.each || stepper.step == stepper.at) {
        stepper.guest(stepper.w);
        stepper.moved = true;
    }
    if (!stepper.each && stepper.step >= stepper.at)
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    stepper.step++;
}

static bool stepper_works(void)
{
    if (under_tool("tsan") || under_tool("valgrind"))
        return false; /* neither runs the program's own instructions one by one */
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    return sigaction(SIGTRAP, &action, NULL) == 0;
}

/* A map of gref with the guest moving before instruction `at` of it, or before each where at is -1. */
static int stepped_map(struct grant_world *w, uint32_t gref, bool write, int at, void (*guest)(struct grant_world *w),
                       struct gntmap_page *page)
{
    stepper = (struct stepper){.at = (unsigned)at, .each = at < 0, .guest = guest, .w = w};
    atomic_signal_fence(memory_order_seq_cst); /* the handler reads the stepper from the next instruction on */
    __writeeflags(__readeflags() | TRAP_FLAG);
    int r = gntmap_map(w->map, gref, write, page);
    __writeeflags(__readeflags() & ~TRAP_FLAG);
    return r;
}
#else
static struct stepper {
    unsigned step;
    bool moved;
} stepper;

static bool stepper_works(void)
{
    return false;
}

static int stepped_map(struct grant_world *w, uint32_t gref, bool write, int at, void (*guest)(struct grant_world *w),
                       struct gntmap_page *page)
{
    (void)at, (void)guest;
    return gntmap_map(w->map, gref, write, page);
}
#endif

/* Instrumented code has ten times the instructions; the plain build visits each one. */
static int step_stride(void)
{
    return under_tool("asan") ? 7 : 1;
}

#define STEPPED(w)                                                                  \
    do {                                                                            \
        if (!stepper_works()) {                                                     \
            print_message("skipped: no single-step trap under this tool or CPU\n"); \
            skip();                                                                 \
        }                                                                           \
    } while (0)

struct move {
    uint32_t gref;
    uint16_t flags, domid;
    uint32_t gfn;
    int code; /* what a map of the entry says when the guest moved before it */
};

static void guest_moves(struct grant_world *w)
{
    const struct move *m = w->user;
    gworld_write(w, m->gref, m->flags, m->domid, m->gfn);
}

/* The entry changes before instruction `at` of its first map: true where the map saw the entry as it was before. */
static bool move_within_first_map(struct grant_world *w, const struct move *move, int at)
{
    struct gntmap_page page, again;
    gworld_write(w, move->gref, GTF_permit_access, WORLD_HOST, GFN);
    int r = stepped_map(w, move->gref, true, at, guest_moves, &page);
    if (r) {
        assert_int_equal(r, move->code);
        assert_int_equal(gworld_flags(w, move->gref), move->flags); /* no mark of ours is left */
        return false;
    }
    assert_int_equal(frametable_pinned(w->frames), 1);
    assert_true(page.address == gworld_host_page(w, GFN) || page.address == gworld_host_page(w, move->gfn));
    assert_false(page.extent->readonly);
    if (stepper.moved && (gworld_flags(w, move->gref) & GTF_reading)) {
        /* Our mark is on what the guest wrote, so that is what was to be checked, and its frame the one to be mapped.
         */
        assert_int_equal(move->code, 0);
        assert_ptr_equal(page.address, gworld_host_page(w, move->gfn));
    }
    bool old = page.address == gworld_host_page(w, GFN);
    assert_int_equal(gntmap_map(w->map, move->gref, false, &again), 0);
    assert_ptr_equal(again.address, page.address);
    gntmap_unmap(w->map, &again);
    gntmap_unmap(w->map, &page);
    return old;
}

static void test_lesson_155_no_instruction_of_a_map_can_be_raced(void **state)
{
    struct grant_world *w = *state;
    STEPPED(w);
    uint32_t gref = gworld_grant(w, GFN, false);
    uint32_t ro = gworld_grant(w, GFN_RO, false);
    struct gntmap_page page; /* both extents are known: the steps are those of the map alone */
    assert_int_equal(gntmap_map(w->map, ro, false, &page), 0);
    gntmap_unmap(w->map, &page);
    assert_int_equal(gntmap_map(w->map, gref, true, &page), 0);
    gntmap_unmap(w->map, &page);

    const struct move moves[] = {
        {gref, GTF_permit_access, WORLD_HOST, GFN + 5, 0},
        {gref, GTF_invalid, 0, GFN + 5, GRANT_E_TYPE},
        {gref, GTF_transitive, WORLD_HOST, GFN + 5, GRANT_E_TYPE},
        {gref, GTF_permit_access, WORLD_HOST + 1, GFN + 5, GRANT_E_DOMAIN},
        {gref, GTF_permit_access | GTF_readonly, WORLD_HOST, GFN + 5, GRANT_E_READONLY},
        {gref, GTF_permit_access, WORLD_HOST, GFN_RO, GRANT_E_READONLY},
    };
    for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
        unsigned before = 0, after = 0;
        w->user = (void *)&moves[i];
        for (int at = 0;; at += step_stride()) {
            if (move_within_first_map(w, &moves[i], at))
                before++;
            else
                after++;
            if (stepper.step <= (unsigned)at) /* the map was over before instruction `at` */
                break;
            assert_true(at < 20000);
        }
        assert_true(before > 0 && after > 0); /* both sides of the decision were met */
    }
}

/* A first writer behind a reader: whatever the table says, and whenever it changes, the frame is the reader's. */
static void test_lesson_226_no_instruction_of_an_upgrade_can_be_raced(void **state)
{
    struct grant_world *w = *state;
    STEPPED(w);
    uint32_t gref = gworld_grant(w, GFN, false);
    const struct move move = {gref, GTF_permit_access | GTF_readonly, WORLD_HOST, GFN + 1, GRANT_E_READONLY};
    w->user = (void *)&move;
    unsigned refused = 0, allowed = 0;
    for (int at = 0;; at += step_stride()) {
        struct gntmap_page reader, writer;
        gworld_write(w, gref, GTF_permit_access, WORLD_HOST, GFN);
        assert_int_equal(gntmap_map(w->map, gref, false, &reader), 0);
        int r = stepped_map(w, gref, true, at, guest_moves, &writer);
        assert_true(r == 0 || r == GRANT_E_READONLY);
        if (r == 0) {
            assert_ptr_equal(writer.address, reader.address);
            gntmap_unmap(w->map, &writer);
        }
        allowed += r == 0;
        refused += r != 0;
        gntmap_unmap(w->map, &reader);
        if (stepper.step <= (unsigned)at)
            break;
    }
    assert_true(refused > 0 && allowed > 0);
}

#define FLICKER_SHIFT 9 /* the flags' unused bits: they permit and forbid nothing */

/* Another word before every instruction, so also between each load and the exchange that relies on it. */
static void guest_flickers(struct grant_world *w)
{
    uint32_t flags = GTF_permit_access | (stepper.step % 128) << FLICKER_SHIFT;
    gworld_write(w, *(uint32_t *)w->user, flags, WORLD_HOST, GFN);
}

static void test_entry_that_never_holds_still_is_given_up(void **state)
{
    struct grant_world *w = *state;
    STEPPED(w);
    uint32_t gref = gworld_grant(w, GFN, false);
    w->user = &gref;
    struct gntmap_page page;
    for (int write = 0; write < 2; write++) {
        assert_int_equal(stepped_map(w, gref, write, -1, guest_flickers, &page), GRANT_E_UNSTABLE);
        assert_int_equal(gworld_flags(w, gref) & ((1u << FLICKER_SHIFT) - 1), GTF_permit_access);
        assert_true(stepper.step < 20000);
    }
    assert_int_equal(gntmap_map(w->map, gref, true, &page), 0); /* it holds still: as though nothing had been */
    gntmap_unmap(w->map, &page);
}

/* ---- random sequences against a model ---- */

#define MODEL_GREFS 40 /* references 0 … 39, the reserved ones included */
#define MODEL_MAPS  64

struct model {
    struct {
        unsigned readers, writers;
        uint32_t gfn;
    } active[MODEL_GREFS];
    struct gntmap_page page[MODEL_MAPS];
    unsigned pages;
    uint32_t granted[MODEL_GREFS]; /* through gnttab */
    unsigned grants;
    uint64_t seed;
};

static const struct world_extent *model_extent(const struct grant_world *w, uint32_t gfn)
{
    for (unsigned i = 0; i < w->extent_count; i++)
        if (gfn >= w->extent[i].base_gfn && gfn - w->extent[i].base_gfn < w->extent[i].frame_count)
            return &w->extent[i];
    return NULL;
}

static int model_entry_permits(const struct grant_entry_v1 *e, bool write)
{
    if ((e->flags & (GTF_type_mask | GTF_sub_page)) != GTF_permit_access)
        return GRANT_E_TYPE;
    if (e->domid != WORLD_HOST)
        return GRANT_E_DOMAIN;
    return write && (e->flags & GTF_readonly) ? GRANT_E_READONLY : 0;
}

static int model_map_result(const struct model *m, struct grant_world *w, uint32_t gref, bool write)
{
    if (gref < GNTTAB_NR_RESERVED_ENTRIES || gref >= GRANT_PER_FRAME)
        return GRANT_E_BAD_REF;
    const struct grant_entry_v1 *e = gworld_entry(w, gref);
    bool active = m->active[gref].readers + m->active[gref].writers > 0;
    const struct world_extent *x = model_extent(w, active ? m->active[gref].gfn : e->frame);
    if (active && x->gone)
        return GRANT_E_REVOKED;
    if (active && (!write || m->active[gref].writers))
        return 0;
    if (active && x->readonly)
        return GRANT_E_READONLY;
    int r = model_entry_permits(e, write);
    if (r || active)
        return r;
    if (!x)
        return GRANT_E_FRAME;
    if (x->gone)
        return x->host ? GRANT_E_REVOKED : GRANT_E_FRAME;
    return write && x->readonly ? GRANT_E_READONLY : 0;
}

static void model_map(struct model *m, struct grant_world *w)
{
    uint32_t gref = gworld_random(&m->seed) % (MODEL_GREFS + 4);
    if (gref >= MODEL_GREFS)
        gref = gworld_random(&m->seed) | GRANT_PER_FRAME;
    bool write = gworld_random(&m->seed) % 2;
    if (m->pages == MODEL_MAPS)
        return;
    int expected = model_map_result(m, w, gref, write);
    uint32_t frame = gref < MODEL_GREFS ? gworld_entry(w, gref)->frame : 0;
    uint16_t before = gref < MODEL_GREFS ? gworld_flags(w, gref) : 0;
    struct gntmap_page *page = &m->page[m->pages];
    assert_int_equal(gntmap_map(w->map, gref, write, page), expected);
    if (expected) {
        if (gref < MODEL_GREFS && gref >= GNTTAB_NR_RESERVED_ENTRIES && !m->active[gref].readers &&
            !m->active[gref].writers)
            assert_int_equal(gworld_flags(w, gref) & ~(GTF_reading | GTF_writing),
                             before & ~(GTF_reading | GTF_writing));
        return;
    }
    if (!m->active[gref].readers && !m->active[gref].writers)
        m->active[gref].gfn = frame;
    if (write)
        m->active[gref].writers++;
    else
        m->active[gref].readers++;
    m->pages++;
    assert_ptr_equal(page->address, gworld_host_page(w, m->active[gref].gfn));
}

static void model_unmap(struct model *m, struct grant_world *w)
{
    if (!m->pages)
        return;
    unsigned i = gworld_random(&m->seed) % m->pages;
    struct gntmap_page page = m->page[i];
    uint16_t before = gworld_flags(w, page.gref), cleared = 0;
    unsigned *kind = page.write ? &m->active[page.gref].writers : &m->active[page.gref].readers;
    (*kind)--;
    if (page.write && !m->active[page.gref].writers)
        cleared |= GTF_writing;
    if (!m->active[page.gref].writers && !m->active[page.gref].readers)
        cleared |= GTF_reading;
    gntmap_unmap(w->map, &page);
    assert_int_equal(gworld_flags(w, page.gref), before & ~cleared);
    m->page[i] = m->page[--m->pages];
}

static uint32_t model_gfn(struct model *m)
{
    static const uint32_t gfns[] = {GFN, GFN + 1, GFN + 7, GFN_RO, GFN_RO + 3, UNSHARED, UINT32_MAX, 0x300, 0x301};
    return gfns[gworld_random(&m->seed) % ARRAY_SIZE(gfns)];
}

static void model_guest(struct model *m, struct grant_world *w)
{
    uint32_t what = gworld_random(&m->seed) % 10;
    if (what < 4 && m->grants < 24) {
        m->granted[m->grants++] = gworld_grant(w, model_gfn(m), gworld_random(&m->seed) % 4 == 0);
    } else if (what < 7 && m->grants) {
        unsigned i = gworld_random(&m->seed) % m->grants;
        bool marked = gworld_flags(w, m->granted[i]) & (GTF_reading | GTF_writing);
        assert_int_equal(gnttab_end(w->table, m->granted[i]), marked ? -EBUSY : 0);
        if (!marked)
            m->granted[i] = m->granted[--m->grants];
    } else if (what < 9) { /* a liar: any entry, any content, marks set or cleared at will */
        uint32_t gref = gworld_random(&m->seed) % MODEL_GREFS;
        uint32_t flags = gworld_random(&m->seed) % 4 ? GTF_permit_access | (gworld_random(&m->seed) & 0xfc)
                                                     : gworld_random(&m->seed) & 0x1ff;
        gworld_write(w, gref, flags, gworld_random(&m->seed) % 8 ? WORLD_HOST : 9, model_gfn(m));
    } else if (gworld_random(&m->seed) % 50 == 0) { /* takes an extent back */
        unsigned i = gworld_random(&m->seed) % w->extent_count;
        w->extent[i].gone = true;
        frametable_revoke(w->frames, w->extent[i].id, 0);
    }
}

static void model_check(const struct model *m, struct grant_world *w)
{
    unsigned pinned = 0;
    for (unsigned i = 0; i < MODEL_GREFS; i++)
        pinned += m->active[i].readers + m->active[i].writers > 0;
    assert_int_equal(gntmap_mapped(w->map), m->pages);
    assert_int_equal(frametable_pinned(w->frames), pinned);
    for (unsigned i = 0; i < m->pages; i++)
        assert_ptr_equal(m->page[i].address, gworld_host_page(w, m->active[m->page[i].gref].gfn));
}

static void test_random_sequences_equal_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct grant_world *w;
        setup((void **)&w);
        gworld_share(w, 0x300, 1, false);
        gworld_share(w, 0x301, 1, true);
        struct model m = {.seed = seed};
        m.granted[m.grants++] = gworld_grant(w, GFN, false); /* from here on there is a grant frame */
        for (int step = 0; step < 3000; step++) {
            uint32_t what = gworld_random(&m.seed) % 10;
            if (what < 4)
                model_map(&m, w);
            else if (what < 7)
                model_unmap(&m, w);
            else
                model_guest(&m, w);
            model_check(&m, w);
        }
        while (m.pages)
            model_unmap(&m, w);
        teardown((void **)&w);
    }
}

/* ---- two threads ---- */

#define RACE_GREFS 16 /* references 8 … 23 */

/* How often each side moves. Valgrind lets one thread run at a time and switches seldom. */
static unsigned race_moves(void)
{
    return under_tool("valgrind") ? 1000 : 100000;
}

struct liar {
    struct grant_world *w;
    uint64_t rewrites;
    bool stop;
};

static void *lie(void *arg)
{
    struct liar *l = arg;
    static const uint32_t gfns[] = {GFN, GFN + 3, GFN_RO, UNSHARED, UINT32_MAX};
    uint64_t seed = 31;
    while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
        uint32_t gref = GNTTAB_NR_RESERVED_ENTRIES + gworld_random(&seed) % RACE_GREFS, dice = gworld_random(&seed);
        uint32_t flags = dice % 8 ? GTF_permit_access | (dice & GTF_readonly) : dice >> 8 & 0x1ff;
        gworld_write(l->w, gref, flags, dice % 16 == 1 ? 9 : WORLD_HOST, gfns[dice % ARRAY_SIZE(gfns)]);
        __atomic_fetch_add(&l->rewrites, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void check_page_is_shared(struct grant_world *w, const struct gntmap_page *page)
{
    const struct frame_extent *x = page->extent;
    assert_true(page->address >= x->address && page->address < x->address + (size_t)x->frame_count * PAGE_BYTES);
    assert_int_equal((page->address - x->address) % PAGE_BYTES, 0);
    assert_ptr_equal(x->address, w->extent[x->id - 1].host);
    assert_false(page->write && x->readonly);
}

static void test_racing_liar_gets_only_its_own_pages_mapped(void **state)
{
    struct grant_world *w = *state;
    w->one_mapping = true;
    struct gntmap_page held[32];
    unsigned count = 0, mapped = 0, refused = 0, moves = race_moves();
    uint64_t seed = 5;
    gworld_grant(w, GFN, false);
    struct liar liar = {.w = w};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, lie, &liar), 0);
    for (unsigned step = 0;
         step < moves || mapped == 0 || refused == 0 || __atomic_load_n(&liar.rewrites, __ATOMIC_RELAXED) < moves;
         step++) {
        uint32_t gref = GNTTAB_NR_RESERVED_ENTRIES + gworld_random(&seed) % RACE_GREFS;
        if (count < ARRAY_SIZE(held) && gworld_random(&seed) % 2) {
            int r = gntmap_map(w->map, gref, gworld_random(&seed) % 2, &held[count]);
            assert_true(r >= 0 && r != GRANT_E_BAD_REF && r != GRANT_E_REVOKED);
            if (r == 0)
                check_page_is_shared(w, &held[count++]);
            mapped += r == 0;
            refused += r != 0;
        } else if (count) {
            unsigned i = gworld_random(&seed) % count;
            check_page_is_shared(w, &held[i]);
            gntmap_unmap(w->map, &held[i]);
            held[i] = held[--count];
        }
    }
    __atomic_store_n(&liar.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    while (count)
        gntmap_unmap(w->map, &held[--count]);
    assert_int_equal(frametable_pinned(w->frames), 0);
    struct gntmap_page page;
    gworld_write(w, 8, GTF_permit_access, WORLD_HOST, GFN + 2);
    assert_int_equal(gntmap_map(w->map, 8, true, &page), 0); /* honest again: served */
    assert_ptr_equal(page.address, gworld_host_page(w, GFN + 2));
    gntmap_unmap(w->map, &page);
    assert_int_equal(gworld_flags(w, 8), GTF_permit_access);
}

#define REUSE_WORDS (PAGE_BYTES / sizeof(uint32_t))

struct reuser {
    struct grant_world *w;
    uint32_t tries; /* of the host */
    bool done;
};

/* Grants a page, ends the grant, and then writes the page, plainly: nobody else may be looking. */
static void *reuse(void *arg)
{
    struct reuser *u = arg;
    for (uint32_t i = 0; i < race_moves() / 100; i++) {
        uint32_t *page = (uint32_t *)(void *)gworld_guest_page(u->w, GFN + i % 8), gref;
        for (size_t k = 0; k < REUSE_WORDS; k += REUSE_WORDS / 8)
            page[k] = i;
        if (gnttab_grant(u->w->table, WORLD_HOST, GFN + i % 8, false, &gref, NULL) < 0)
            break;
        uint32_t tries = __atomic_load_n(&u->tries, __ATOMIC_RELAXED);
        while (i % 8 == 0 && __atomic_load_n(&u->tries, __ATOMIC_RELAXED) - tries < 2)
            sched_yield(); /* now and then the host surely had its turn */
        while (gnttab_end(u->w->table, gref) == -EBUSY)
            sched_yield();
        for (size_t k = 0; k < REUSE_WORDS; k += REUSE_WORDS / 8)
            page[k] = UINT32_MAX;
    }
    __atomic_store_n(&u->done, true, __ATOMIC_RELAXED);
    return NULL;
}

static void test_lesson_396_page_is_never_reused_while_mapped(void **state)
{
    struct grant_world *w = *state;
    w->one_mapping = true;
    const bool one_at_a_time = under_tool("valgrind");
    uint32_t gref = gworld_grant(w, GFN, false), mapped = 0;
    assert_int_equal(gnttab_end(w->table, gref), 0); /* the one reference that all grants to come will have */
    struct reuser u = {.w = w};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, reuse, &u), 0);
    while (!__atomic_load_n(&u.done, __ATOMIC_RELAXED)) {
        struct gntmap_page page;
        int r = gntmap_map(w->map, gref, false, &page);
        __atomic_fetch_add(&u.tries, 1, __ATOMIC_RELAXED);
        if (r) {
            assert_true(r == GRANT_E_TYPE || r == GRANT_E_UNSTABLE);
            sched_yield();
            continue;
        }
        const uint32_t *data = (const uint32_t *)(void *)page.address;
        for (size_t k = 0; k < REUSE_WORDS; k += REUSE_WORDS / 8) {
            assert_int_equal(data[k], data[0]);
            assert_true(data[k] < race_moves() / 100);
        }
        gntmap_unmap(w->map, &page);
        mapped++;
        if (one_at_a_time) /* else each of the guest's turns may find the page mapped, for ever */
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_true(mapped > 0);
    assert_int_equal(gnttab_in_use(w->table), 0);
}

#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_lesson_155_no_instruction_of_a_map_can_be_raced),
        WORLD_TEST(test_lesson_226_no_instruction_of_an_upgrade_can_be_raced),
        WORLD_TEST(test_entry_that_never_holds_still_is_given_up),
        cmocka_unit_test(test_random_sequences_equal_the_model),
        WORLD_TEST(test_racing_liar_gets_only_its_own_pages_mapped),
        WORLD_TEST(test_lesson_396_page_is_never_reused_while_mapped),
    };
    return cmocka_run_group_tests_name("gntmap_race", tests, NULL, NULL);
}
