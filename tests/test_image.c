/* SPDX-License-Identifier: MIT */
/* The conformance test of image formats, which iterates their table: spans are covered, regions and locks hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "backend/blk/image.h"
#include "base/span.h"

/* Files of a test lie in a directory of their own below the build directory: O_DIRECT works there as on any disk, while
 * /tmp may be a tmpfs. */
struct world {
    char dir[256], file[300];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    const char *base = getenv("DOMZERO_BUILD");
    snprintf(w->dir, sizeof(w->dir), "%s/image-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->file, sizeof(w->file), "%s/disk.img", w->dir);
    int fd = open(w->file, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[320];
    snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0);
    free(w);
    return 0;
}

static int open_raw(const struct image_config *config, struct image **out, struct err *e)
{
    *out = NULL;
    return image_open("raw", config, out, e);
}

/* ---- what cannot be a disk is refused with a sentence that says why and names the path ---- */

struct refusal {
    const char *name; /* in the directory; made by `make` */
    void (*make)(const char *path);
    uint64_t offset, size;
    bool readonly;
    int code;
    const char *words;
};

static void make_none(const char *path)
{
    unlink(path);
}

static void make_dir(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_fifo(const char *path)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void make_sized(const char *path, off_t size)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static void make_empty(const char *path)
{
    make_sized(path, 0);
}

static void make_1000(const char *path)
{
    make_sized(path, 1000);
}

static void make_8k(const char *path)
{
    make_sized(path, 8192);
}

static const struct refusal refusals[] = {
    {"missing", make_none, 0, 0, false, -ENOENT, "does not exist"},
    {"dir", make_dir, 0, 0, false, -EISDIR, "is a directory"},
    {"dir-ro", make_dir, 0, 0, true, -EISDIR, "is a directory"},
    {"fifo", make_fifo, 0, 0, true, -EINVAL, "neither a regular file nor a block device"},
    {"empty", make_empty, 0, 0, false, -EINVAL, "too small"},
    {"odd", make_1000, 0, 0, false, -EINVAL, "not a multiple of 512"},
    {"offset-odd", make_8k, 100, 512, false, -EINVAL, "offset 100 is not a multiple of 512"},
    {"size-odd", make_8k, 0, 100, false, -EINVAL, "size 100 is not a multiple of 512"},
    {"offset-at-end", make_8k, 8192, 0, false, -EINVAL, "too small"},
    {"past-end", make_8k, 4096, 8192, false, -EINVAL, "too small"},
    {"wrapping", make_8k, 4096, UINT64_MAX - 4095, false, -EINVAL, "too small"},
    {"wrapping-offset", make_8k, UINT64_MAX - 511, 512, false, -EINVAL, "too small"},
};

static void test_what_cannot_be_a_disk_is_refused_with_a_sentence(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++) {
        const struct refusal *r = &refusals[i];
        char path[400];
        struct err e = {0};
        struct image *image;
        snprintf(path, sizeof(path), "%s/%s", w->dir, r->name);
        r->make(path);
        struct image_config c = {
            .path = path, .offset_bytes = r->offset, .size_bytes = r->size, .readonly = r->readonly};
        int rc = open_raw(&c, &image, &e);
        if (rc != r->code || !strstr(e.text, path) || !strstr(e.text, r->words))
            print_error("%s: %d '%s'\n", r->name, rc, e.text);
        assert_int_equal(rc, r->code);
        assert_non_null(strstr(e.text, path));
        assert_non_null(strstr(e.text, r->words));
        assert_null(image);
    }
}

/* In a process that is not root, where this one is: nothing is forbidden to root by file modes. */
static void try_unwritable(const char *path)
{
    struct err e = {0};
    struct image *image;
    struct image_config c = {.path = path};
    if (geteuid() == 0 && setresuid(65534, 65534, 65534))
        _exit(1);
    if (open_raw(&c, &image, &e) != -EACCES || !strstr(e.text, "mode r"))
        _exit(2);
    c.readonly = true;
    _exit(open_raw(&c, &image, &e) ? 3 : 0);
}

static void test_a_file_that_may_not_be_written_is_refused_for_writing_only(void **state)
{
    char path[] = "/tmp/image-test-XXXXXX";
    int status, fd = mkstemp(path);
    (void)state;
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(fchmod(fd, 0444), 0);
    close(fd);
    pid_t pid = fork();
    if (pid == 0)
        try_unwritable(path);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    unlink(path);
}

static void test_an_unknown_format_names_those_that_exist(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct image *image;
    struct image_config c = {.path = w->file};
    assert_int_equal(image_open("vhdx", &c, &image, &e), -EINVAL);
    assert_non_null(strstr(e.text, "vhdx"));
    for (unsigned i = 0; i < image_format_count; i++)
        assert_non_null(strstr(e.text, image_formats[i]->name));
}

/* ---- every row maps spans into extents that cover them and never leave the file's region ---- */

static void check_map(const struct image *image, uint64_t offset, uint64_t length, bool write)
{
    struct image_extent x[IMAGE_EXTENTS_MAX];
    int n = image->format->map(image, offset, length, write, x);
    assert_in_range(n, 1, IMAGE_EXTENTS_MAX);
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i].length_bytes;
        assert_true(x[i].length_bytes > 0);
        if (x[i].kind == IMAGE_NONE) {
            assert_int_equal(n, 1);
            continue;
        }
        if (write)
            assert_int_equal(x[i].kind, IMAGE_DATA);
        if (x[i].kind == IMAGE_ZERO)
            continue;
        struct stat st;
        assert_int_equal(fstat(x[i].fd, &st), 0);
        assert_true(span_fits(x[i].offset_bytes, x[i].length_bytes, (uint64_t)st.st_size));
    }
    assert_int_equal(sum, length);
}

static void test_conformance_extents_cover_the_span(void **state)
{
    struct world *w = *state;
    for (unsigned f = 0; f < image_format_count; f++) {
        struct err e = {0};
        struct image *image;
        struct image_config c = {.path = w->file, .size_bytes = 1 << 20};
        assert_int_equal(image_open(image_formats[f]->name, &c, &image, &e), 0);
        assert_true(image->sector_bytes == 512 || image->sector_bytes == 4096);
        assert_int_equal(image->size_bytes % image->sector_bytes, 0);
        for (uint64_t offset = 0; offset < image->size_bytes; offset += 37 * 512)
            for (uint64_t length = 512; length <= MIN(45056, image->size_bytes - offset); length += 11 * 512) {
                check_map(image, offset, length, false);
                check_map(image, offset, length, true);
            }
        check_map(image, image->size_bytes - 512, 512, true);
        image_close(image);
    }
}

static void test_a_region_is_moved_by_its_offset_and_ends_with_its_size(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct image *image;
    struct image_extent x[IMAGE_EXTENTS_MAX];
    struct image_config c = {.path = w->file, .offset_bytes = 65536, .size_bytes = 131072};
    assert_int_equal(open_raw(&c, &image, &e), 0);
    assert_int_equal(image->size_bytes, 131072);
    assert_int_equal(image->format->map(image, 131072 - 4096, 4096, true, x), 1);
    assert_int_equal(x[0].offset_bytes, 65536 + 131072 - 4096);
    assert_int_equal(x[0].length_bytes, 4096);
    image_close(image);
    c.size_bytes = 0; /* to the end of the file */
    assert_int_equal(open_raw(&c, &image, &e), 0);
    assert_int_equal(image->size_bytes, (1 << 20) - 65536);
    image_close(image);
}

static void test_a_null_image_is_as_large_as_it_is_told_and_needs_no_file(void **state)
{
    struct err e = {0};
    struct image *image;
    struct image_config c = {.path = "/nowhere", .size_bytes = (uint64_t)1 << 50};
    (void)state;
    assert_int_equal(image_open("null", &c, &image, &e), 0);
    assert_int_equal(image->size_bytes, (uint64_t)1 << 50);
    image_close(image);
    c.size_bytes = 1000;
    assert_int_equal(image_open("null", &c, &image, &e), -EINVAL);
    assert_non_null(strstr(e.text, "not a multiple of 512"));
}

static void test_direct_io_asks_for_the_devices_alignment(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct image *image;
    struct image_config c = {.path = w->file, .direct_io = true};
    int rc = open_raw(&c, &image, &e);
    if (rc == -EINVAL) {
        print_message("skipped: %s\n", e.text);
        skip();
    }
    assert_int_equal(rc, 0);
    uint32_t align = image->sector_bytes;
    int flags = fcntl(image->fd, F_GETFL);
    assert_true(flags & O_DIRECT);
    assert_false(flags & O_NONBLOCK);
    void *page = NULL;
    assert_int_equal(posix_memalign(&page, 4096, 8192), 0);
    assert_int_equal(pread(image->fd, (char *)page + align, align, align), align); /* what it promises works */
    free(page);
    image_close(image);
    c.offset_bytes = align / 2 + align;
    assert_int_equal(open_raw(&c, &image, &e), -EINVAL);
    assert_non_null(strstr(e.text, "not a multiple"));
}

/* ---- one writer ---- */

/* Tries to open the image in another process: the code it got. */
static int open_elsewhere(const struct image_config *c)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct image *image;
        struct err e = {0};
        int rc = open_raw(c, &image, &e);
        if (rc == -EBUSY && !strstr(e.text, c->path))
            _exit(99);
        _exit(-rc);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static void test_a_second_process_cannot_open_what_is_written(void **state)
{
    struct world *w = *state;
    struct err e;
    struct image *image;
    struct image_config rw = {.path = w->file}, ro = {.path = w->file, .readonly = true};
    assert_int_equal(open_raw(&rw, &image, &e), 0);
    assert_int_equal(open_elsewhere(&rw), -EBUSY);
    assert_int_equal(open_elsewhere(&ro), -EBUSY);
    image_close(image);
    assert_int_equal(open_elsewhere(&rw), 0);
}

static void test_readers_share_and_keep_a_writer_out(void **state)
{
    struct world *w = *state;
    struct err e;
    struct image *image;
    struct image_config rw = {.path = w->file}, ro = {.path = w->file, .readonly = true};
    assert_int_equal(open_raw(&ro, &image, &e), 0);
    assert_int_equal(open_elsewhere(&ro), 0);
    assert_int_equal(open_elsewhere(&rw), -EBUSY);
    image_close(image);
}

static void test_regions_of_one_file_are_locked_apart(void **state)
{
    struct world *w = *state;
    struct err e;
    struct image *a, *b, *c;
    struct image_config low = {.path = w->file, .offset_bytes = 0, .size_bytes = 65536};
    struct image_config high = {.path = w->file, .offset_bytes = 65536, .size_bytes = 65536};
    struct image_config across = {.path = w->file, .offset_bytes = 32768, .size_bytes = 65536};
    assert_int_equal(open_raw(&low, &a, &e), 0);
    assert_int_equal(open_raw(&high, &b, &e), 0);
    assert_int_equal(open_raw(&across, &c, &e), -EBUSY);
    assert_int_equal(open_elsewhere(&across), -EBUSY);
    image_close(a);
    image_close(b);
}

static void test_closing_unlocks_though_somebody_still_holds_the_file(void **state)
{
    struct world *w = *state;
    struct err e;
    struct image *image;
    struct image_config rw = {.path = w->file};
    assert_int_equal(open_raw(&rw, &image, &e), 0);
    int kept = dup(image->fd); /* as a registered file of an io_uring keeps it */
    image_close(image);
    assert_int_equal(open_elsewhere(&rw), 0);
    close(kept);
}

static void test_a_killed_process_leaves_no_lock(void **state)
{
    struct world *w = *state;
    int ready[2], status;
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct image *image;
        struct image_config rw = {.path = w->file};
        if (open_raw(&rw, &image, NULL) || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    struct image_config rw = {.path = w->file};
    assert_int_equal(open_elsewhere(&rw), -EBUSY);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(open_elsewhere(&rw), 0);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_cannot_be_a_disk_is_refused_with_a_sentence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_may_not_be_written_is_refused_for_writing_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_unknown_format_names_those_that_exist, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conformance_extents_cover_the_span, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_region_is_moved_by_its_offset_and_ends_with_its_size, setup, teardown),
        cmocka_unit_test(test_a_null_image_is_as_large_as_it_is_told_and_needs_no_file),
        cmocka_unit_test_setup_teardown(test_direct_io_asks_for_the_devices_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_second_process_cannot_open_what_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readers_share_and_keep_a_writer_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_regions_of_one_file_are_locked_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_unlocks_though_somebody_still_holds_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_killed_process_leaves_no_lock, setup, teardown),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
