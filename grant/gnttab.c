/* SPDX-License-Identifier: MIT */
#include "grant/gnttab.h"

#include <assert.h>

#include "base/idalloc.h"

#define END_TRIES 5 /* a grantee that keeps changing the entry makes the end busy, not endless */

struct table_frame {
    struct grant_entry_v1 *entries; /* shared, GRANT_PER_FRAME of them */
    uint16_t grantee;
    struct idalloc slots; /* taken: granted, or reserved */
};

struct gnttab {
    const struct gnttab_ops *ops;
    void *ctx;
    struct table_frame *frame[GNTTAB_FRAMES_MAX]; /* by index in the domain's table; other instances' are NULL */
    uint32_t frame_count, hint;                   /* hint: index of the frame that gave last */
    uint32_t in_use;
    uint32_t reserved; /* a bit for each reserved reference that is granted */
};

int gnttab_new(const struct gnttab_ops *ops, void *ctx, struct gnttab **out)
{
    struct gnttab *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->ops = ops;
    t->ctx = ctx;
    *out = t;
    return 0;
}

static void table_frame_free(struct table_frame *f)
{
    if (!f)
        return;
    idalloc_deinit(&f->slots);
    free(f);
}

void gnttab_free(struct gnttab *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < GNTTAB_FRAMES_MAX; i++)
        table_frame_free(t->frame[i]);
    free(t);
}

static struct table_frame *table_frame_new(uint16_t grantee)
{
    struct table_frame *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->grantee = grantee;
    if (idalloc_init(&f->slots, GRANT_PER_FRAME) < 0) {
        free(f);
        return NULL;
    }
    return f;
}

static bool table_frame_serves(const struct table_frame *f, uint16_t grantee)
{
    return f && f->grantee == grantee && f->slots.used < f->slots.limit;
}

/* Asks the platform for a frame and puts it into the table; its index, or -errno. */
static int table_grow(struct gnttab *t, uint16_t grantee, struct err *e)
{
    if (t->frame_count == GNTTAB_FRAMES_MAX)
        return err_set(e, -ENOSPC,
                       "the grant table is full: %u frames of %u grants; end grants before making more, or share "
                       "fewer pages at a time",
                       GNTTAB_FRAMES_MAX, (unsigned)GRANT_PER_FRAME);
    struct table_frame *f = table_frame_new(grantee);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for the books of a grant-table frame");
    uint32_t index = 0;
    void *page = NULL;
    int r = t->ops->frame_new(t->ctx, grantee, &index, &page, e);
    if (r < 0) {
        table_frame_free(f);
        return r;
    }
    if (index >= GNTTAB_FRAMES_MAX || t->frame[index]) {
        table_frame_free(f);
        return err_set(e, -EPROTO,
                       "was given grant-table frame %u, which is %s; does the hypervisor role fit this build?", index,
                       index >= GNTTAB_FRAMES_MAX ? "outside the table" : "in use");
    }
    if (index == 0)
        for (uint32_t i = 0; i < GNTTAB_NR_RESERVED_ENTRIES; i++)
            idalloc_take(&f->slots, i);
    f->entries = page;
    t->frame[index] = f;
    t->frame_count++;
    return (int)index;
}

/* The index of a frame of that grantee with room, or -errno. */
static int table_room(struct gnttab *t, uint16_t grantee, struct err *e)
{
    if (table_frame_serves(t->frame[t->hint], grantee))
        return (int)t->hint;
    for (unsigned i = 0; i < GNTTAB_FRAMES_MAX; i++)
        if (table_frame_serves(t->frame[i], grantee))
            return (int)i;
    return table_grow(t, grantee, e);
}

static void entry_publish(struct grant_entry_v1 *entry, uint16_t grantee, uint32_t gfn, bool readonly)
{
    uint32_t flags = GTF_permit_access | (readonly ? GTF_readonly : 0);
    __atomic_store_n(&entry->frame, gfn, __ATOMIC_RELAXED);
    __atomic_store_n(grant_word(entry), grant_word_make(flags, grantee), __ATOMIC_RELEASE);
}

int gnttab_grant(struct gnttab *t, uint16_t grantee, uint32_t gfn, bool readonly, uint32_t *gref, struct err *e)
{
    int index = table_room(t, grantee, e);
    if (index < 0)
        return index;
    struct table_frame *f = t->frame[index];
    int64_t slot = idalloc_get(&f->slots);
    assert(slot >= 0);
    entry_publish(&f->entries[slot], grantee, gfn, readonly);
    t->hint = (uint32_t)index;
    t->in_use++;
    *gref = (uint32_t)index * GRANT_PER_FRAME + (uint32_t)slot;
    return 0;
}

/* Has the table's first frame, and it is that grantee's. */
static int table_first(struct gnttab *t, uint16_t grantee, struct err *e)
{
    int index = t->frame[0] ? 0 : table_grow(t, grantee, e);
    if (index < 0)
        return index;
    if (index > 0)
        return err_set(e, -EBUSY,
                       "another process of this domain has the first frame of the grant table, in which the reserved "
                       "references lie: end it");
    if (t->frame[0]->grantee != grantee)
        return err_set(e, -EBUSY,
                       "the first frame of the grant table is shared with domain %u: grant domain %u the reserved "
                       "references before anything else",
                       t->frame[0]->grantee, grantee);
    return 0;
}

int gnttab_grant_reserved(struct gnttab *t, uint32_t gref, uint16_t grantee, uint32_t gfn, bool readonly, struct err *e)
{
    assert(gref < GNTTAB_NR_RESERVED_ENTRIES);
    int r = table_first(t, grantee, e);
    if (r < 0)
        return r;
    if (t->reserved & 1u << gref)
        return err_set(e, -EBUSY, "the reserved reference %u is granted already: end it first", gref);
    entry_publish(&t->frame[0]->entries[gref], grantee, gfn, readonly);
    t->reserved |= 1u << gref;
    t->in_use++;
    return 0;
}

/* 0: the entry grants nothing any more; -EBUSY: it is mapped, or changed END_TRIES times under us. */
static int entry_try_end(struct grant_entry_v1 *entry)
{
    uint32_t seen = grant_word_load(entry);
    for (int i = 0; i < END_TRIES; i++) {
        if (seen & (GTF_reading | GTF_writing))
            return -EBUSY;
        if (grant_word_exchange(entry, &seen, 0))
            return 0;
    }
    return -EBUSY;
}

int gnttab_end(struct gnttab *t, uint32_t gref)
{
    uint32_t index = gref / GRANT_PER_FRAME, slot = gref % GRANT_PER_FRAME;
    bool reserved = gref < GNTTAB_NR_RESERVED_ENTRIES;
    assert(index < GNTTAB_FRAMES_MAX);
    struct table_frame *f = t->frame[index];
    assert(f && (reserved ? t->reserved & 1u << gref : idalloc_taken(&f->slots, slot)));
    int r = entry_try_end(&f->entries[slot]);
    if (r < 0)
        return r;
    if (reserved)
        t->reserved &= ~(1u << gref);
    else
        idalloc_put(&f->slots, slot);
    t->in_use--;
    return 0;
}

uint32_t gnttab_in_use(const struct gnttab *t)
{
    return t->in_use;
}
