/* SPDX-License-Identifier: MIT */
/* grant/window.h: several mapped grants seen as one piece of memory, in the order of the references.
 *
 * A ring of several pages is indexed as one, but its pages are any pages of the guest's: our own frontends take them
 * from one extent, where they are adjacent already and nothing is to be done; Linux allocates each by itself. Then an
 * address range is reserved, and into each page of it goes a second mapping of the guest's page, made by the kernel
 * from the first (mremap(2) with an old size of 0). So no descriptor of the extent is needed here, and the guest's
 * memory is reached as before: what is mapped twice is the same page.
 *
 * A window borrows its pages: each stays mapped, and so pinned, until after the close. What the guest can do to the
 * memory is what it can do to any ring page. References that name one page twice make a window in which it is twice.
 */
#ifndef GRANT_WINDOW_H
#define GRANT_WINDOW_H

#include "base/err.h"
#include "grant/gntmap.h"

struct grant_window {
    unsigned char *address; /* NULL: closed */
    size_t bytes;
    bool own; /* a range of its own, and not the pages' */
};

/* 0, or -errno with a sentence: the kernel refuses the second mapping, or its pages are not of PAGE_BYTES. */
int grant_window_open(struct grant_window *w, const struct gntmap_page *pages, unsigned count, struct err *e);
void grant_window_close(struct grant_window *w); /* a closed one, and one of zeroes, is fine */

#endif
