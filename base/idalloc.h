/* SPDX-License-Identifier: MIT */
/* base/idalloc.h: the lowest free number of a fixed range [0, limit), as a bitmap. Allocates only in init. */
#ifndef BASE_IDALLOC_H
#define BASE_IDALLOC_H

#include "base/util.h"

struct idalloc {
    uint64_t *words;
    uint32_t limit, used, hint; /* hint: no free number lies below word `hint` */
};

int idalloc_init(struct idalloc *a, uint32_t limit); /* 0 or -ENOMEM */
void idalloc_deinit(struct idalloc *a);
int64_t idalloc_get(struct idalloc *a);           /* a number, or -ENOSPC */
int idalloc_take(struct idalloc *a, uint32_t id); /* that number: 0, -EBUSY, -ERANGE */
void idalloc_put(struct idalloc *a, uint32_t id); /* asserts that it was taken */
bool idalloc_taken(const struct idalloc *a, uint32_t id);

#endif
