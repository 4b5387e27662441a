/* SPDX-License-Identifier: MIT */
#include "base/idalloc.h"

#include <assert.h>

static uint32_t word_count(uint32_t limit)
{
    return limit / 64 + (limit % 64 != 0);
}

int idalloc_init(struct idalloc *a, uint32_t limit)
{
    *a = (struct idalloc){.limit = limit, .words = calloc(word_count(limit) + 1, sizeof(uint64_t))};
    return a->words ? 0 : -ENOMEM;
}

void idalloc_deinit(struct idalloc *a)
{
    free(a->words);
    *a = (struct idalloc){0};
}

bool idalloc_taken(const struct idalloc *a, uint32_t id)
{
    return id < a->limit && (a->words[id / 64] >> (id % 64) & 1);
}

int64_t idalloc_get(struct idalloc *a)
{
    for (uint32_t w = a->hint; w < word_count(a->limit); w++) {
        a->hint = w;
        if (a->words[w] == UINT64_MAX)
            continue;
        uint32_t id = w * 64 + (uint32_t)__builtin_ctzll(~a->words[w]);
        if (id >= a->limit)
            break;
        a->words[w] |= 1ull << (id % 64);
        a->used++;
        return id;
    }
    return -ENOSPC;
}

int idalloc_take(struct idalloc *a, uint32_t id)
{
    if (id >= a->limit)
        return -ERANGE;
    if (idalloc_taken(a, id))
        return -EBUSY;
    a->words[id / 64] |= 1ull << (id % 64);
    a->used++;
    return 0;
}

void idalloc_put(struct idalloc *a, uint32_t id)
{
    assert(idalloc_taken(a, id));
    a->words[id / 64] &= ~(1ull << (id % 64));
    a->used--;
    a->hint = MIN(a->hint, id / 64);
}
