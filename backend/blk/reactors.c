/* SPDX-License-Identifier: MIT */
#include "backend/blk/reactors.h"

#include <assert.h>

struct reactors {
    struct gntmarks *marks; /* of all of them; NULL where there is one */
    unsigned count;
    struct {
        struct engine *engine;
        unsigned queues;
    } at[REACTORS_MAX];
};

unsigned reactors_default(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 4 ? 1 : MIN((unsigned)processors / 2, REACTORS_DEFAULT_MAX);
}

int reactors_new(const struct engine_options *options, unsigned count, struct reactors **out, struct err *e)
{
    assert(count >= 1 && count <= REACTORS_MAX);
    struct reactors *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(e, -ENOMEM, "out of memory");
    struct engine_options o = *options;
    if (count > 1 && gntmarks_new(&r->marks)) {
        free(r);
        return err_set(e, -ENOMEM, "out of memory");
    }
    o.marks = r->marks;
    for (; r->count < count; r->count++) {
        int rc = engine_new(&o, &r->at[r->count].engine, e);
        if (rc) {
            reactors_free(r);
            return rc;
        }
    }
    *out = r;
    return 0;
}

void reactors_free(struct reactors *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < r->count; i++)
        engine_stop(r->at[i].engine);
    for (unsigned i = 0; i < r->count; i++)
        engine_free(r->at[i].engine);
    gntmarks_free(r->marks);
    free(r);
}

unsigned reactors_count(const struct reactors *r)
{
    return r->count;
}

struct engine *reactors_engine(const struct reactors *r, unsigned index)
{
    assert(index < r->count);
    return r->at[index].engine;
}

struct journal *reactors_journal(const struct reactors *r)
{
    return engine_journal(r->at[0].engine);
}

unsigned reactors_least(const struct reactors *r)
{
    unsigned least = 0;
    for (unsigned i = 1; i < r->count; i++)
        if (r->at[i].queues < r->at[least].queues)
            least = i;
    return least;
}

void reactors_charge(struct reactors *r, unsigned index)
{
    assert(index < r->count);
    r->at[index].queues++;
}

void reactors_discharge(struct reactors *r, unsigned index)
{
    assert(index < r->count && r->at[index].queues > 0);
    r->at[index].queues--;
}
