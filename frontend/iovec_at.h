/* SPDX-License-Identifier: MIT */
/* frontend/iovec_at.h: a place in the memory that an array of struct iovec names, and the pieces from there on. The
 * array is the caller's, and names as much as is asked for. */
#ifndef FRONTEND_IOVEC_AT_H
#define FRONTEND_IOVEC_AT_H

#include <sys/uio.h>

#include "base/util.h"
#include "domzero/domzero.h"

struct iovec_at {
    const struct iovec *iov;
    size_t skip; /* of the first of them */
};

static inline struct iovec_at iovec_at(const struct iovec *iov, size_t skip)
{
    while (skip >= iov->iov_len && skip)
        skip -= iov++->iov_len;
    return (struct iovec_at){iov, skip};
}

/* The next piece, of at most *bytes > 0, which becomes its length. */
static inline void *iovec_next(struct iovec_at *at, size_t *bytes)
{
    while (at->skip == at->iov->iov_len) {
        at->iov++;
        at->skip = 0;
    }
    unsigned char *piece = (unsigned char *)at->iov->iov_base + at->skip;
    *bytes = MIN(*bytes, at->iov->iov_len - at->skip);
    at->skip += *bytes;
    return piece;
}

static inline bool io_is_vector(const struct dz_io *io)
{
    unsigned op = (unsigned)io->op & ~(unsigned)DZ_FUA;
    return op == DZ_READV || op == DZ_WRITEV;
}

#endif
