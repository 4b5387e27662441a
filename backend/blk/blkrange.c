/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkrange.h"

#include <assert.h>

void blkranges_init(struct blkranges *s)
{
    list_init(&s->shared);
    list_init(&s->exclusive);
    list_init(&s->waiting);
}

bool blkranges_idle(const struct blkranges *s)
{
    return list_empty(&s->shared) && list_empty(&s->exclusive) && list_empty(&s->waiting);
}

static bool conflict(const struct blkrange *a, const struct blkrange *b)
{
    return (a->exclusive || b->exclusive) && a->first_bytes < b->end_bytes && b->first_bytes < a->end_bytes;
}

/* With any of these, up to `end` (NULL: all of them)? */
static bool conflict_any(const struct list *ranges, const struct blkrange *r, const struct blkrange *end)
{
    const struct blkrange *other;
    list_foreach (other, ranges, link) {
        if (other == end)
            break;
        if (conflict(other, r))
            return true;
    }
    return false;
}

/* `self`: r where it waits already, and only those before it count. */
static bool may_have(const struct blkranges *s, const struct blkrange *r, const struct blkrange *self)
{
    if (conflict_any(&s->exclusive, r, NULL) || conflict_any(&s->waiting, r, self))
        return false;
    return !r->exclusive || !conflict_any(&s->shared, r, NULL);
}

static void give(struct blkranges *s, struct blkrange *r)
{
    list_append(r->exclusive ? &s->exclusive : &s->shared, &r->link);
}

bool blkranges_claim(struct blkranges *s, struct blkrange *r)
{
    assert(r->first_bytes < r->end_bytes);
    list_init(&r->link);
    if (may_have(s, r, NULL)) {
        give(s, r);
        return true;
    }
    list_append(&s->waiting, &r->link);
    return false;
}

void blkranges_release(struct blkranges *s, struct blkrange *r)
{
    (void)s;
    assert(!list_empty(&r->link));
    list_remove(&r->link);
}

struct blkrange *blkranges_next(struct blkranges *s)
{
    struct blkrange *r;
    list_foreach (r, &s->waiting, link) {
        if (!may_have(s, r, r))
            continue;
        list_remove(&r->link);
        give(s, r);
        return r;
    }
    return NULL;
}
