/* SPDX-License-Identifier: MIT */
/* base/fdlimit.h: raises this process's limit of open descriptors to the hard limit. Only for processes of ours: who
 * uses select() would be hurt by descriptors above 1023. */
#ifndef BASE_FDLIMIT_H
#define BASE_FDLIMIT_H

#include <errno.h>
#include <stddef.h>
#include <sys/resource.h>

/* 0 and the limit that now holds (may be NULL), or -errno. */
static inline int fdlimit_raise(rlim_t *now)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    if (now)
        *now = limit.rlim_cur;
    return 0;
}

#endif
