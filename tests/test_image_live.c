/* SPDX-License-Identifier: MIT */
/* An image that changes while it is open: its region, its lock and its file go together, and where one of them cannot,
 * none does. Another open of the same file in this process is another owner, as locks are the open file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "backend/blk/image.h"

#define MIB (1u << 20)

struct world {
    char dir[256], file[300];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    const char *base = getenv("DOMZERO_BUILD");
    snprintf(w->dir, sizeof(w->dir), "%s/image-live-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->file, sizeof(w->file), "%s/disk.img", w->dir);
    int fd = open(w->file, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    close(fd);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unlink(w->file);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static struct image *open_image(struct world *w, uint64_t offset, uint64_t size, bool readonly)
{
    struct image *image = NULL;
    struct err e;
    const struct image_config c = {.path = w->file, .offset_bytes = offset, .size_bytes = size, .readonly = readonly};
    if (image_open("raw", &c, &image, &e))
        fail_msg("%s", e.text);
    return image;
}

/* Could somebody else have these bytes? */
static int may_open(struct world *w, uint64_t offset, uint64_t size, bool readonly)
{
    struct image *image = NULL;
    const struct image_config c = {.path = w->file, .offset_bytes = offset, .size_bytes = size, .readonly = readonly};
    int r = image_open("raw", &c, &image, NULL);
    image_close(image);
    return r;
}

static uint64_t file_bytes(struct world *w)
{
    struct stat st;
    assert_int_equal(stat(w->file, &st), 0);
    return (uint64_t)st.st_size;
}

static void test_the_lock_is_where_the_disk_is(void **state)
{
    struct world *w = *state;
    struct image *image = open_image(w, MIB, MIB, false);
    assert_int_equal(image_resize(image, MIB / 2, NULL), 0);
    assert_int_equal(image->size_bytes, MIB / 2);
    assert_int_equal(may_open(w, MIB + MIB / 2, MIB / 2, false), 0);
    assert_int_equal(may_open(w, MIB + MIB / 2 - 512, 512, false), -EBUSY);
    assert_int_equal(image_resize(image, 2 * MIB, NULL), 0);
    assert_int_equal(may_open(w, 3 * MIB - 512, 512, true), -EBUSY);
    assert_int_equal(may_open(w, 3 * MIB, 512, false), 0);
    image_close(image);
    assert_int_equal(may_open(w, 0, 0, false), 0);
}

static void test_a_disk_does_not_grow_into_what_others_hold(void **state)
{
    struct world *w = *state;
    struct image *image = open_image(w, 0, MIB, false), *other = open_image(w, 2 * MIB, MIB, true);
    struct err e;
    assert_int_equal(image_resize(image, 3 * MIB, &e), -EBUSY);
    assert_int_equal(image->size_bytes, MIB);
    assert_int_equal(may_open(w, MIB, MIB, false), 0); /* nothing of it stayed locked */
    assert_int_equal(image_resize(image, 2 * MIB, &e), 0);
    image_close(other);
    assert_int_equal(image_resize(image, 8 * MIB, &e), 0);
    assert_int_equal(file_bytes(w), 8 * MIB);
    image_close(image);
}

static void test_a_file_grows_for_the_disk_that_is_its_end_and_for_no_other(void **state)
{
    struct world *w = *state;
    struct err e;
    struct image *middle = open_image(w, MIB, MIB, false), *end = open_image(w, 3 * MIB, 0, false);
    assert_int_equal(image_resize(end, 2 * MIB, &e), 0);
    assert_int_equal(file_bytes(w), 5 * MIB);
    image_close(end);
    assert_int_equal(image_resize(middle, 8 * MIB, &e), -ENOSPC);
    assert_int_equal(file_bytes(w), 5 * MIB);
    assert_int_equal(may_open(w, 2 * MIB, 3 * MIB, false), 0);
    image_close(middle);
    struct image *readonly = open_image(w, 0, 0, true);
    assert_int_equal(image_resize(readonly, 8 * MIB, &e), -EROFS);
    assert_int_equal(file_bytes(w), 5 * MIB);
    image_close(readonly);
}

static void test_sizes_that_cannot_be_are_refused(void **state)
{
    struct world *w = *state;
    static const uint64_t bad[] = {0, 1, 511, 513, UINT64_MAX, UINT64_MAX - 511, (uint64_t)INT64_MAX + 1};
    struct image *image = open_image(w, MIB, MIB, false);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err e = {0};
        assert_true(image_resize(image, bad[i], &e) < 0);
        assert_true(strlen(e.text) > 20);
        assert_int_equal(image->size_bytes, MIB);
    }
    struct err e;
    assert_int_equal(image_resize(image, INT64_MAX - 511, &e), -EFBIG); /* from its offset on it wraps */
    image_close(image);
}

static void test_a_writer_lets_readers_in_and_takes_its_lock_back(void **state)
{
    struct world *w = *state;
    struct image *image = open_image(w, 0, MIB, false);
    struct err e;
    assert_int_equal(image_set_readonly(image, true, &e), 0);
    struct image *reader = open_image(w, 0, MIB, true);
    assert_int_equal(may_open(w, 0, MIB, false), -EBUSY);
    assert_int_equal(image_set_readonly(image, false, &e), -EBUSY);
    assert_true(image->readonly);
    image_close(reader);
    assert_int_equal(image_set_readonly(image, false, &e), 0);
    assert_false(image->readonly);
    assert_int_equal(may_open(w, 0, MIB, true), -EBUSY);
    image_close(image);
}

/* What was opened for reading has no descriptor to write through. */
static void test_a_reader_becomes_the_writer_if_it_is_the_only_one(void **state)
{
    struct world *w = *state;
    struct image *image = open_image(w, 0, MIB, true), *reader = open_image(w, 0, MIB, true);
    struct err e;
    int before = image->fd;
    assert_int_equal(image_set_readonly(image, false, &e), -EBUSY);
    assert_true(image->readonly && image->fd == before);
    image_close(reader);
    assert_int_equal(may_open(w, 0, MIB, false), -EBUSY); /* it still has its lock, and that only */
    assert_int_equal(may_open(w, 0, MIB, true), 0);
    assert_int_equal(image_set_readonly(image, false, &e), 0);
    assert_int_equal(pwrite(image->fd, "x", 1, 0), 1);
    assert_int_equal(may_open(w, 0, MIB, true), -EBUSY);
    image_close(image);
    assert_int_equal(may_open(w, 0, MIB, false), 0);
}

static void test_another_file_of_the_same_name_is_not_written(void **state)
{
    struct world *w = *state;
    struct image *image = open_image(w, 0, MIB, true);
    struct err e;
    unlink(w->file);
    assert_int_equal(image_set_readonly(image, false, &e), -ENOENT);
    int fd = open(w->file, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, MIB), 0);
    close(fd);
    assert_int_equal(image_set_readonly(image, false, &e), -ESTALE);
    assert_true(image->readonly);
    image_close(image);
}

static void test_a_format_that_cannot_change_says_so(void **state)
{
    struct image *image = NULL;
    struct err e;
    (void)state;
    assert_int_equal(image_open("null", &(struct image_config){.path = "/x", .size_bytes = MIB}, &image, &e), 0);
    assert_int_equal(image_resize(image, 2 * MIB, &e), -EOPNOTSUPP);
    assert_non_null(strstr(e.text, "null"));
    assert_int_equal(image_set_readonly(image, true, &e), -EOPNOTSUPP);
    assert_int_equal(image_resize(image, MIB, &e), 0); /* as it is */
    image_close(image);
}

#define IMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IMAGE_TEST(test_the_lock_is_where_the_disk_is),
        IMAGE_TEST(test_a_disk_does_not_grow_into_what_others_hold),
        IMAGE_TEST(test_a_file_grows_for_the_disk_that_is_its_end_and_for_no_other),
        IMAGE_TEST(test_sizes_that_cannot_be_are_refused),
        IMAGE_TEST(test_a_writer_lets_readers_in_and_takes_its_lock_back),
        IMAGE_TEST(test_a_reader_becomes_the_writer_if_it_is_the_only_one),
        IMAGE_TEST(test_another_file_of_the_same_name_is_not_written),
        cmocka_unit_test(test_a_format_that_cannot_change_says_so),
    };
    return cmocka_run_group_tests_name("image_live", tests, NULL, NULL);
}
