/* SPDX-License-Identifier: MIT */
#include "grant/window.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static bool pages_adjacent(const struct gntmap_page *pages, unsigned count)
{
    for (unsigned i = 1; i < count; i++)
        if (pages[i].address != pages[0].address + (size_t)i * PAGE_BYTES)
            return false;
    return true;
}

/* Puts a second mapping of each page into the range: 0 or -errno. */
static int range_fill(unsigned char *range, const struct gntmap_page *pages, unsigned count)
{
    if (sysconf(_SC_PAGESIZE) != (long)PAGE_BYTES)
        return -EOPNOTSUPP;
    for (unsigned i = 0; i < count; i++)
        if (mremap(pages[i].address, 0, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, range + (size_t)i * PAGE_BYTES) ==
            MAP_FAILED)
            return -errno;
    return 0;
}

int grant_window_open(struct grant_window *w, const struct gntmap_page *pages, unsigned count, struct err *e)
{
    assert(count > 0);
    *w = (struct grant_window){.address = pages[0].address, .bytes = (size_t)count * PAGE_BYTES};
    if (pages_adjacent(pages, count))
        return 0;
    w->address = NULL;
    unsigned char *range = mmap(NULL, w->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int r = range == MAP_FAILED ? -errno : range_fill(range, pages, count);
    if (r < 0) {
        if (range != MAP_FAILED)
            munmap(range, w->bytes);
        return err_set(
            e, r,
            "the %u pages do not lie side by side and cannot be mapped so: %s; use ring-page-order 0, or pages "
            "of one extent",
            count, strerror(-r));
    }
    w->address = range;
    w->own = true;
    return 0;
}

void grant_window_close(struct grant_window *w)
{
    if (w->own)
        munmap(w->address, w->bytes);
    *w = (struct grant_window){0};
}
