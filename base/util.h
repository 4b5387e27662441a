/* SPDX-License-Identifier: MIT */
/* base/util.h: the few words that every room shares: sizes of arrays, containers of members, and the
 * cleanup attributes for locals.
 *
 * A local declared with `_cleanup_(fd_closep)` or `_cleanup_free_` is released on every way out of its
 * scope; ownership leaves the scope with take_fd() or take_ptr(), which put the empty value in its place.
 */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define PRINTF(fmt, args)               __attribute__((format(printf, fmt, args)))

#define PAGE_SHIFT_4K 12
#define PAGE_BYTES    4096u /* a Xen page, the unit of a grant, whatever the host's page size is */
#define SECTOR_BYTES  512u  /* the unit of every sector number on the block wire */

static inline void fd_closep(int *fd)
{
    if (*fd >= 0) {
        int keep = errno;
        close(*fd);
        errno = keep;
        *fd = -1;
    }
}

static inline void free_p(void *p)
{
    free(*(void **)p);
}

/* Asks for a line of the cache to be written to: one that another processor wrote last then comes once, and not a second
 * time to be taken from it. Compilers make a fetch for reading of the builtin unless told that all machines have more;
 * those that have not do nothing here. */
static inline void prefetch_write(const void *p)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

#define _cleanup_(f)    __attribute__((cleanup(f)))
#define _cleanup_free_  _cleanup_(free_p)
#define _cleanup_close_ _cleanup_(fd_closep)

/* Moves a descriptor out of a local with _cleanup_close_. */
static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Moves a pointer out of a local with a cleanup attribute. */
#define take_ptr(p)                 \
    ({                              \
        __typeof__(p) taken_ = (p); \
        (p) = NULL;                 \
        taken_;                     \
    })

#endif
