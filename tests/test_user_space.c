/* SPDX-License-Identifier: MIT */
/* Where other domains' memory is mapped: platform/user_space.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "platform/user_space.h"
#include "tests/random.h"

static int memory(uint32_t frames)
{
    int fd = memfd_create("user-space", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)frames * PAGE_BYTES), 0);
    return fd;
}

/* Whether the kernel finds memory there. */
static bool readable(const unsigned char *at)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    ssize_t n = write(pipes[1], at, 1);
    close(pipes[0]);
    close(pipes[1]);
    return n == 1;
}

static void test_a_place_that_was_given_back_is_nothing_or_the_next_extents(void **state)
{
    (void)state;
    unsigned char *first = user_space_map(memory(4), 4, false);
    unsigned char *second = user_space_map(memory(4), 4, false);
    assert_true(first && second && first != second);
    memset(first, 1, 4 * PAGE_BYTES);
    memset(second, 2, 4 * PAGE_BYTES);
    user_space_unmap(first, 4);
    assert_false(readable(first));
    for (int i = 0; i < 64; i++) { /* our own memory goes elsewhere, and stays */
        unsigned char *own = mmap(NULL, 4 * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(own != MAP_FAILED && (own + 4 * PAGE_BYTES <= first || own >= first + 4 * PAGE_BYTES));
    }
    assert_int_equal(second[0], 2);
    unsigned char *third = user_space_map(memory(3), 3, false);
    assert_ptr_equal(third, first);
    assert_int_equal(third[0], 0);
    user_space_unmap(second, 4);
    user_space_unmap(third, 3);
}

static void test_what_is_shared_for_reading_cannot_be_written(void **state)
{
    (void)state;
    unsigned char *p = user_space_map(memory(1), 1, true);
    assert_non_null(p);
    assert_true(readable(p));
    int fd = open("/dev/zero", O_RDONLY);
    assert_true(read(fd, p, 1) < 0 && errno == EFAULT);
    close(fd);
    user_space_unmap(p, 1);
}

static void test_a_descriptor_that_cannot_be_mapped_is_an_error_and_closed(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_null(user_space_map(pipes[0], 1, true));
    assert_int_equal(errno, ENODEV);
    assert_true(close(pipes[0]) < 0 && errno == EBADF);
    close(pipes[1]);
}

/* Extents of all sizes come and go: no two meet, and places that are neighbours become one again. */
static void test_extents_never_meet_and_space_is_used_again(void **state)
{
    enum { SLOTS = 64, FRAMES_MAX = 400, ROUNDS = 4000 };
    static struct {
        unsigned char *at;
        uint32_t frames;
    } slot[SLOTS];
    uint64_t seed = 5;
    unsigned char *lowest = NULL, *highest = NULL;
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        unsigned k = random_next(&seed) % SLOTS;
        if (slot[k].at) {
            assert_int_equal(slot[k].at[0], k);
            assert_int_equal(slot[k].at[slot[k].frames * PAGE_BYTES - 1], k);
            user_space_unmap(slot[k].at, slot[k].frames);
            slot[k].at = NULL;
            continue;
        }
        slot[k].frames = 1 + random_next(&seed) % FRAMES_MAX;
        unsigned char *at = slot[k].at = user_space_map(memory(slot[k].frames), slot[k].frames, false);
        assert_non_null(at);
        at[0] = at[slot[k].frames * PAGE_BYTES - 1] = (unsigned char)k;
        lowest = !lowest || at < lowest ? at : lowest;
        highest = at > highest ? at : highest;
    }
    assert_true((size_t)(highest - lowest) < (size_t)256 << 20); /* one reservation */
    for (unsigned k = 0; k < SLOTS; k++)
        if (slot[k].at)
            user_space_unmap(slot[k].at, slot[k].frames);
    unsigned char *large = user_space_map(memory(SLOTS * FRAMES_MAX), SLOTS * FRAMES_MAX, false);
    assert_ptr_equal(large, lowest); /* all is one again */
    user_space_unmap(large, SLOTS * FRAMES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_place_that_was_given_back_is_nothing_or_the_next_extents),
        cmocka_unit_test(test_what_is_shared_for_reading_cannot_be_written),
        cmocka_unit_test(test_a_descriptor_that_cannot_be_mapped_is_an_error_and_closed),
        cmocka_unit_test(test_extents_never_meet_and_space_is_used_again),
    };
    return cmocka_run_group_tests_name("user_space", tests, NULL, NULL);
}
