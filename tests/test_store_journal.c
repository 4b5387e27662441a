/* SPDX-License-Identifier: MIT */
/* store/journal.h: the state after a restart is the state before it; of a file that is torn, cut or flipped it is the
 * state after some change, the last one wherever nothing that counts was harmed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "store/journal.h"
#include "store/record.h"
#include "tests/storekit.h"

#define STATES_MAX 64

/* A store as a role has it: an engine, its journal, a session of domain 0. */
struct store {
    struct store_engine g;
    struct store_journal *journal;
    struct store_session dom0;
};

struct bytes {
    char *at;
    size_t length;
};

static char dir[64], path[96], old_path[128], bad_path[128];
static struct bytes states[STATES_MAX]; /* after each change */
static unsigned state_count;

static int hook_record(void *context, const struct store_change *change)
{
    return store_journal_record(((struct store *)context)->journal, change);
}

static void start(struct store *s)
{
    struct err e = {""};
    assert_int_equal(store_engine_init(&s->g, NULL, 7), 0);
    if (store_journal_open(path, &s->g, &s->journal, &e) < 0)
        fail_msg("%s", e.text);
    s->g.hooks = (struct store_hooks){.record = hook_record, .context = s};
    assert_int_equal(store_session_init(&s->dom0, &s->g, 0), 0);
}

/* As far as the file is concerned, like kill -9. */
static void stop(struct store *s)
{
    store_session_deinit(&s->dom0);
    store_engine_deinit(&s->g);
    store_journal_close(s->journal);
}

static int bytes_add(void *context, const char *bytes, size_t length)
{
    struct bytes *b = context;
    b->at = realloc(b->at, b->length + length);
    assert_non_null(b->at);
    memcpy(b->at + b->length, bytes, length);
    b->length += length;
    return 0;
}

static struct bytes state_of(const struct store *s)
{
    struct bytes b = {0};
    assert_int_equal(store_record_snapshot(&s->g, bytes_add, &b), 0);
    return b;
}

/* Which of the states it is, the last one first; -1: none. */
static int state_find(struct bytes b)
{
    for (int i = (int)state_count - 1; i >= 0; i--)
        if (states[i].length == b.length && memcmp(states[i].at, b.at, b.length) == 0)
            return i;
    return -1;
}

static void state_note(const struct store *s)
{
    assert_true(state_count < STATES_MAX);
    states[state_count++] = state_of(s);
}

static void states_forget(void)
{
    while (state_count > 0)
        free(states[--state_count].at);
}

static struct bytes file_read(const char *name)
{
    struct bytes b = {0};
    struct stat st;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    b.length = (size_t)st.st_size;
    b.at = malloc(b.length + 1);
    assert_non_null(b.at);
    assert_int_equal(read(fd, b.at, b.length), (ssize_t)b.length);
    close(fd);
    return b;
}

static void file_write(const char *name, struct bytes b)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.at, b.length), (ssize_t)b.length);
    close(fd);
}

/* What a start makes of the file as it lies there: the state's number. */
static int restart_finds(void)
{
    struct store s;
    start(&s);
    struct bytes b = state_of(&s);
    int found = state_find(b);
    free(b.at);
    stop(&s);
    return found;
}

static bool damage_was_kept(void)
{
    bool kept = access(bad_path, F_OK) == 0;
    unlink(bad_path);
    return kept;
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/domzero-journal-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/%s", dir, STORE_JOURNAL_FILE);
    snprintf(old_path, sizeof(old_path), "%s.old", path);
    snprintf(bad_path, sizeof(bad_path), "%s.bad", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    states_forget();
    store_journal_remove(path);
    unlink(bad_path);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static void write_value(struct store *s, const char *node, const char *value)
{
    kit_expect_ok(kit_write(&s->dom0, 0, node, value));
    state_note(s);
}

static void introduce(struct store *s, const char *domid)
{
    char payload[32];
    int length = snprintf(payload, sizeof(payload), "%s%c77%c9", domid, 0, 0) + 1;
    kit_expect_ok(kit_ask(&s->dom0, XS_INTRODUCE, 0, payload, (size_t)length));
    state_note(s);
}

static void control(struct store *s, const char *words, size_t length)
{
    kit_expect_ok(kit_ask(&s->dom0, XS_CONTROL, 0, words, length + 1));
    state_note(s);
}

/* One of each kind of change. */
static void changes_make(struct store *s)
{
    state_note(s);
    write_value(s, "/a/b/c", "one");
    write_value(s, "/a/b/d", "");
    write_value(s, "/a/b/c", "two");
    introduce(s, "1");
    introduce(s, "2");
    kit_expect_ok(kit_ask2(&s->dom0, XS_SET_TARGET, 0, "1", "2"));
    state_note(s);
    kit_expect_ok(kit_ask1(&s->dom0, XS_MKDIR, 0, "/local/domain/1/own"));
    state_note(s);
    kit_set_perms(&s->dom0, "/local/domain/1/own", "n1,r2");
    state_note(s);
    kit_set_perms(&s->dom0, "/a/b", "b0,w1,n2");
    state_note(s);
    kit_set_perms(&s->dom0, "@releaseDomain", "n0,r2");
    state_note(s);
    control(s, "quota\0set\0nodes\000777", 19);
    control(s,
            "quota\0set\0watches\0"
            "33\0002",
            22);
    uint32_t tx = kit_tx(&s->dom0);
    kit_expect_ok(kit_write(&s->dom0, tx, "/x/1", "first"));
    kit_expect_ok(kit_write(&s->dom0, tx, "/x/2", "second"));
    kit_expect_ok(kit_ask1(&s->dom0, XS_RM, tx, "/a/b/d"));
    kit_expect_ok(kit_ask1(&s->dom0, XS_TRANSACTION_END, tx, "T"));
    state_note(s);
    kit_expect_ok(kit_ask1(&s->dom0, XS_RELEASE, 0, "1"));
    state_note(s);
    kit_expect_ok(kit_ask1(&s->dom0, XS_RM, 0, "/tool"));
    state_note(s);
    write_value(s, "/last", "change");
}

static void test_each_kind_of_change_outlives_the_process(void **state)
{
    struct store s;
    (void)state;
    start(&s);
    changes_make(&s);
    stop(&s);
    assert_int_equal(restart_finds(), (int)state_count - 1);
    assert_int_equal(restart_finds(), (int)state_count - 1); /* from the snapshot that the first one made */
    assert_false(damage_was_kept());
}

static void test_what_was_not_committed_is_not_there(void **state)
{
    struct store s;
    (void)state;
    start(&s);
    write_value(&s, "/a", "1");
    uint32_t tx = kit_tx(&s.dom0), aborted = kit_tx(&s.dom0), collides = kit_tx(&s.dom0);
    kit_expect_ok(kit_write(&s.dom0, tx, "/open", "x"));
    kit_expect_ok(kit_write(&s.dom0, aborted, "/aborted", "x"));
    kit_expect_ok(kit_write(&s.dom0, collides, "/a", "x"));
    kit_expect_ok(kit_ask1(&s.dom0, XS_TRANSACTION_END, aborted, "F"));
    write_value(&s, "/a", "2");
    kit_expect_error(kit_ask1(&s.dom0, XS_TRANSACTION_END, collides, "T"), "EAGAIN");
    stop(&s);
    assert_int_equal(restart_finds(), (int)state_count - 1);
}

static void test_the_next_domain_of_a_number_finds_nothing_after_a_restart(void **state)
{
    struct store s;
    (void)state;
    start(&s);
    introduce(&s, "5");
    kit_expect_ok(kit_write(&s.dom0, 0, "/home/5", "secret"));
    kit_set_perms(&s.dom0, "/home/5", "n5");
    store_engine_domain_gone(&s.g, 5);
    stop(&s);
    start(&s);
    kit_expect_error(kit_ask1(&s.dom0, XS_READ, 0, "/home/5"), "ENOENT");
    kit_expect_string(kit_ask1(&s.dom0, XS_IS_DOMAIN_INTRODUCED, 0, "5"), "F");
    stop(&s);
}

/* Where the acknowledged records of a file end. */
static size_t tail_of(struct bytes file)
{
    uint32_t units;
    memcpy(&units, file.at + 48, sizeof(units));
    return (size_t)units * 8;
}

/* A file with each kind of change behind a snapshot. */
static struct bytes file_make(void)
{
    struct store s;
    start(&s);
    changes_make(&s);
    stop(&s);
    unlink(old_path);
    return file_read(path);
}

static void test_cut_at_any_byte_it_keeps_what_came_before(void **state)
{
    struct bytes file = file_make();
    size_t tail = tail_of(file);
    int before = -1;
    (void)state;
    assert_true(tail > 64 && tail < 8192);
    for (size_t length = 0; length < tail + 64; length++) {
        file_write(path, (struct bytes){file.at, length});
        unlink(old_path);
        int found = restart_finds();
        assert_int_equal(damage_was_kept(), length < tail);
        if (length >= tail)
            assert_int_equal(found, (int)state_count - 1);
        else
            assert_true(found >= before);
        before = found;
    }
    free(file.at);
}

static void test_any_flipped_byte_is_harmless_or_found_out(void **state)
{
    struct bytes file = file_make();
    size_t tail = tail_of(file);
    (void)state;
    for (size_t at = 0; at < tail + 64; at++) {
        char kept = file.at[at];
        file.at[at] = (char)(kept ^ (1 << at % 8));
        file_write(path, (struct bytes){file.at, tail + 4096});
        file.at[at] = kept;
        unlink(old_path);
        int found = restart_finds();
        bool damaged = damage_was_kept();
        if (found != (int)state_count - 1)
            assert_true(damaged && at < tail);
    }
    free(file.at);
}

static void test_a_flipped_byte_of_the_snapshot_costs_nothing(void **state)
{
    struct store s;
    (void)state;
    struct bytes first = file_make();
    start(&s); /* a new file: what was, as a snapshot, and the one before it beside it */
    write_value(&s, "/behind/the/snapshot", "x");
    stop(&s);
    struct bytes file = file_read(path);
    uint64_t snapshot_bytes;
    memcpy(&snapshot_bytes, file.at + 16, sizeof(snapshot_bytes));
    for (size_t at = 64; at < snapshot_bytes; at++) {
        char kept = file.at[at];
        file.at[at] = (char)(kept ^ (1 << at % 8));
        file_write(path, (struct bytes){file.at, tail_of(file)});
        file_write(old_path, (struct bytes){first.at, tail_of(first)});
        file.at[at] = kept;
        assert_int_equal(restart_finds(), (int)state_count - 1);
        damage_was_kept();
    }
    free(file.at);
    free(first.at);
}

/* What a process leaves that is killed while it writes: everything but the length, which comes last. */
static void test_a_record_that_was_being_written_is_dropped_without_a_word(void **state)
{
    struct bytes file = file_make();
    size_t tail = tail_of(file);
    (void)state;
    memset(file.at + tail + 4, 0x5a, 200);
    file_write(path, (struct bytes){file.at, tail + 4096});
    assert_int_equal(restart_finds(), (int)state_count - 1);
    assert_false(damage_was_kept());
    free(file.at);
}

/* … and one that is killed before it moves the tail. */
static void test_a_whole_record_behind_the_tail_counts(void **state)
{
    struct store s;
    (void)state;
    start(&s);
    write_value(&s, "/a", "1");
    struct bytes before = file_read(path);
    write_value(&s, "/a", "2");
    stop(&s);
    struct bytes file = file_read(path);
    memcpy(file.at + 48, before.at + 48, 8);
    file_write(path, file);
    assert_int_equal(restart_finds(), (int)state_count - 1);
    assert_false(damage_was_kept());
    free(before.at);
    free(file.at);
}

static void test_a_file_of_noise_is_kept_aside_and_the_store_begins_anew(void **state)
{
    uint64_t seed = 5;
    (void)state;
    struct store s;
    start(&s);
    state_note(&s);
    stop(&s);
    for (unsigned i = 0; i < 50; i++) {
        char noise[3000];
        for (size_t n = 0; n < sizeof(noise); n++)
            noise[n] = (char)kit_random(&seed, 256);
        file_write(path, (struct bytes){noise, kit_random(&seed, sizeof(noise))});
        unlink(old_path);
        assert_int_equal(restart_finds(), 0);
        assert_true(damage_was_kept());
    }
}

static void test_records_of_noise_are_refused(void **state)
{
    uint64_t seed = 11;
    struct store s;
    (void)state;
    start(&s);
    changes_make(&s);
    struct bytes whole = state_of(&s);
    stop(&s);
    for (unsigned i = 0; i < 3000; i++) {
        struct store_engine g;
        struct bytes b = {malloc(whole.length), whole.length};
        assert_non_null(b.at);
        memcpy(b.at, whole.at, b.length);
        for (unsigned n = kit_random(&seed, 6) + 1; n > 0; n--)
            b.at[kit_random(&seed, (uint32_t)b.length)] = (char)kit_random(&seed, 256);
        assert_int_equal(store_engine_init(&g, NULL, 3), 0);
        int r = store_record_apply(&g, b.at, kit_random(&seed, 4) ? b.length : kit_random(&seed, (uint32_t)b.length));
        assert_true(r == 0 || r == -EPROTO);
        store_engine_deinit(&g);
        free(b.at);
    }
    free(whole.at);
}

/* One request of a random transaction over few names, so that nodes are made, removed and made again in it. */
static void random_request(struct store *s, uint32_t tx, uint64_t *seed)
{
    static const char *const perms[] = {"n0", "n0,r3", "b0,w1,n2"};
    char node[32];
    int length = 0;
    for (uint32_t depth = kit_random(seed, 3) + 1; depth > 0; depth--)
        length += snprintf(node + length, sizeof(node) - (size_t)length, "/%c", (int)('a' + kit_random(seed, 3)));
    switch (kit_random(seed, 5)) {
    case 0: kit_ask1(&s->dom0, XS_RM, tx, node); break;
    case 1: kit_ask1(&s->dom0, XS_MKDIR, tx, node); break;
    case 2:
        if (kit_ask1(&s->dom0, XS_READ, tx, node).type == XS_READ && !tx)
            kit_set_perms(&s->dom0, node, perms[kit_random(seed, ARRAY_SIZE(perms))]);
        break;
    default: kit_write(&s->dom0, tx, node, node + kit_random(seed, 2));
    }
}

static void test_random_transactions_leave_the_same_tree_in_the_same_order(void **state)
{
    uint64_t seed = 17;
    (void)state;
    for (unsigned life = 0; life < 40; life++) {
        struct store s;
        start(&s);
        for (unsigned i = 0; i < 40; i++) {
            uint32_t tx = kit_random(&seed, 2) ? kit_tx(&s.dom0) : 0;
            for (unsigned n = kit_random(&seed, 8) + 1; n > 0; n--)
                random_request(&s, tx, &seed);
            if (tx)
                kit_expect_ok(kit_ask1(&s.dom0, XS_TRANSACTION_END, tx, "T"));
        }
        state_note(&s);
        stop(&s);
        assert_int_equal(restart_finds(), (int)state_count - 1);
    }
}

static size_t size_of(const char *name)
{
    struct stat st;
    return stat(name, &st) < 0 ? 0 : (size_t)st.st_size;
}

static void test_the_file_does_not_grow_with_what_was_and_is_no_more(void **state)
{
    char value[2049];
    struct store s;
    (void)state;
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    start(&s);
    for (unsigned i = 0; i < 20000; i++) {
        value[i % 2000] ^= 1;
        kit_expect_ok(kit_write(&s.dom0, 0, "/the/same", value));
    }
    state_note(&s);
    stop(&s);
    assert_true(size_of(path) <= 4u << 20 && size_of(old_path) <= 4u << 20);
    assert_int_equal(restart_finds(), 0);
}

static void test_a_large_tree_and_a_large_commit_outlive_the_process(void **state)
{
    struct store s;
    char node[64];
    (void)state;
    start(&s);
    uint32_t tx = kit_tx(&s.dom0);
    for (unsigned i = 0; i < 4000; i++) {
        snprintf(node, sizeof(node), "/many/%u/%u/%u", i % 7, i % 101, i);
        kit_expect_ok(kit_write(&s.dom0, tx, node, node));
    }
    kit_expect_ok(kit_ask1(&s.dom0, XS_TRANSACTION_END, tx, "T"));
    state_note(&s);
    stop(&s);
    assert_int_equal(restart_finds(), 0);
    assert_int_equal(restart_finds(), 0);
}

static void test_a_full_disk_refuses_changes_and_nothing_else(void **state)
{
    struct rlimit limit, small = {0};
    struct store s;
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    start(&s);
    introduce(&s, "5");
    kit_expect_ok(kit_write(&s.dom0, 0, "/of5", "secret"));
    kit_set_perms(&s.dom0, "/of5", "n5");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small.rlim_cur = 4u << 20;
    small.rlim_max = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct kit_reply r = {.type = XS_WRITE};
    char value[4001], node[32];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    unsigned count = 0;
    for (; r.type == XS_WRITE && count < 10000; count++) {
        snprintf(node, sizeof(node), "/n%u", count);
        r = kit_write(&s.dom0, 0, node, value);
    }
    kit_expect_error(r, "ENOSPC");
    struct kit_reply missing = kit_ask1(&s.dom0, XS_READ, 0, node);
    kit_expect_error(missing, "ENOENT");                      /* refused as a whole */
    for (unsigned i = 0; r.type != XS_ERROR || i < 1000; i++) /* to the last byte */
        r = kit_write(&s.dom0, 0, "/n0", i % 2 ? "odd" : "even");
    kit_expect_error(r, "ENOSPC");
    kit_expect_text(kit_ask1(&s.dom0, XS_READ, 0, "/n1"), value);
    kit_expect_error(kit_ask1(&s.dom0, XS_RELEASE, 0, "5"), "ENOSPC");
    kit_expect_text(kit_ask1(&s.dom0, XS_READ, 0, "/of5"), "secret");
    store_engine_domain_gone(&s.g, 5); /* a death cannot be refused */
    kit_expect_error(kit_ask1(&s.dom0, XS_READ, 0, "/of5"), "ENOENT");
    kit_expect_error(kit_ask1(&s.dom0, XS_RM, 0, "/n1"), "ENOSPC"); /* nor may anything be written before it */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    kit_expect_ok(kit_ask1(&s.dom0, XS_RM, 0, "/n1"));
    state_note(&s);
    stop(&s);
    assert_int_equal(restart_finds(), (int)state_count - 1);
}

static void test_a_start_on_a_full_disk_serves_what_there_was(void **state)
{
    struct rlimit limit, small = {0};
    struct store s;
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    start(&s);
    write_value(&s, "/a", "1");
    stop(&s);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small.rlim_max = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    start(&s);
    kit_expect_text(kit_ask1(&s.dom0, XS_READ, 0, "/a"), "1");
    kit_expect_error(kit_write(&s.dom0, 0, "/b", "2"), "ENOSPC");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    write_value(&s, "/b", "2");
    stop(&s);
    assert_int_equal(restart_finds(), (int)state_count - 1);
}

int main(void)
{
#define JOURNAL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        JOURNAL_TEST(test_each_kind_of_change_outlives_the_process),
        JOURNAL_TEST(test_what_was_not_committed_is_not_there),
        JOURNAL_TEST(test_the_next_domain_of_a_number_finds_nothing_after_a_restart),
        JOURNAL_TEST(test_cut_at_any_byte_it_keeps_what_came_before),
        JOURNAL_TEST(test_any_flipped_byte_is_harmless_or_found_out),
        JOURNAL_TEST(test_a_flipped_byte_of_the_snapshot_costs_nothing),
        JOURNAL_TEST(test_a_record_that_was_being_written_is_dropped_without_a_word),
        JOURNAL_TEST(test_a_whole_record_behind_the_tail_counts),
        JOURNAL_TEST(test_a_file_of_noise_is_kept_aside_and_the_store_begins_anew),
        JOURNAL_TEST(test_records_of_noise_are_refused),
        JOURNAL_TEST(test_random_transactions_leave_the_same_tree_in_the_same_order),
        JOURNAL_TEST(test_the_file_does_not_grow_with_what_was_and_is_no_more),
        JOURNAL_TEST(test_a_large_tree_and_a_large_commit_outlive_the_process),
        JOURNAL_TEST(test_a_full_disk_refuses_changes_and_nothing_else),
        JOURNAL_TEST(test_a_start_on_a_full_disk_serves_what_there_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
