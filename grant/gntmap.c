/* SPDX-License-Identifier: MIT */
#include "grant/gntmap.h"

#include <assert.h>

#include "base/span.h"
#include "grant/gnttab.h"

/* What the first map of a reference found; in force while it has readers or writers. */
struct active_entry {
    struct frame_extent *extent; /* holds one pin of gfn; NULL: not mapped */
    uint32_t gfn;
    uint16_t readers, writers; /* maps without and with write access */
};

struct grant_frame {
    struct grant_entry_v1 *entries; /* shared with the granter */
    uint32_t instance;
    uint32_t used; /* active entries in force */
    bool gone;     /* its instance is: no new maps, given back when unused */
    struct active_entry active[GRANT_PER_FRAME];
};

struct gntmap {
    const struct gntmap_ops *ops;
    void *ctx;
    struct frametable *frames;
    uint16_t self, granter;
    uint32_t mapped; /* at most 2 * GRANT_PINS_MAX for each reference: does not wrap */
    uint64_t misses;
    struct grant_frame *frame[GNTTAB_FRAMES_MAX];
};

_Static_assert(2ull * GRANT_PINS_MAX * GNTTAB_FRAMES_MAX * GRANT_PER_FRAME <= UINT32_MAX, "gntmap.mapped");

int gntmap_new(const struct gntmap_ops *ops, void *ctx, uint16_t self, uint16_t granter, struct frametable *frames,
               struct gntmap **out)
{
    struct gntmap *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->ops = ops;
    m->ctx = ctx;
    m->self = self;
    m->granter = granter;
    m->frames = frames;
    *out = m;
    return 0;
}

static void grant_frame_release(struct gntmap *m, uint32_t index)
{
    struct grant_frame *f = m->frame[index];
    assert(f->used == 0);
    m->frame[index] = NULL;
    m->ops->grant_frame_put(m->ctx, m->granter, index, f->entries);
    free(f);
}

void gntmap_free(struct gntmap *m)
{
    if (!m)
        return;
    assert(m->mapped == 0);
    for (uint32_t i = 0; i < GNTTAB_FRAMES_MAX; i++)
        if (m->frame[i])
            grant_frame_release(m, i);
    free(m);
}

static int grant_frame_fetch(struct gntmap *m, uint32_t index, struct grant_frame **out)
{
    _cleanup_free_ struct grant_frame *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    void *page = NULL;
    int r = m->ops->grant_frame_get(m->ctx, m->granter, index, &f->instance, &page);
    if (r < 0) {
        m->misses++;
        return r == -ENOENT || r == -EACCES ? GRANT_E_BAD_REF : r;
    }
    f->entries = page;
    *out = m->frame[index] = take_ptr(f);
    return 0;
}

/* The grant frame of a reference that the peer sent. */
static int grant_frame_find(struct gntmap *m, uint32_t gref, struct grant_frame **out)
{
    uint32_t index = gref / GRANT_PER_FRAME;
    if (gref < GNTTAB_NR_RESERVED_ENTRIES || index >= GNTTAB_FRAMES_MAX)
        return GRANT_E_BAD_REF;
    struct grant_frame *f = m->frame[index];
    if (!f)
        return grant_frame_fetch(m, index, out);
    if (f->gone)
        return GRANT_E_REVOKED;
    *out = f;
    return 0;
}

/* Whether this snapshot of {flags, domid} permits the access. */
static int word_check(uint32_t word, uint16_t self, bool write)
{
    if ((word & (GTF_type_mask | GTF_sub_page)) != GTF_permit_access)
        return GRANT_E_TYPE;
    if (grant_word_domid(word) != self)
        return GRANT_E_DOMAIN;
    if (write && (word & GTF_readonly))
        return GRANT_E_READONLY;
    return 0;
}

static uint32_t access_marks(bool write)
{
    return write ? GTF_reading | GTF_writing : GTF_reading;
}

/* Checks a snapshot and exchanges exactly that snapshot for itself with the access marked. */
static int entry_mark(struct grant_entry_v1 *entry, uint16_t self, bool write)
{
    uint32_t seen = grant_word_load(entry);
    for (int i = 0; i < GNTMAP_TRIES; i++) {
        int r = word_check(seen, self, write);
        if (r)
            return r;
        if (grant_word_exchange(entry, &seen, seen | access_marks(write)))
            return 0;
    }
    return GRANT_E_UNSTABLE;
}

/* What frametable_pin() said, as whose wrong it is. */
static int pin_error(struct gntmap *m, int r)
{
    switch (r) {
    case -EROFS: return GRANT_E_READONLY;
    case -EOVERFLOW: return GRANT_E_PINS;
    case -ESTALE: return GRANT_E_REVOKED;
    case -ENOENT:
    case -EACCES: m->misses++; return GRANT_E_FRAME;
    default: m->misses++; return r;
    }
}

static int active_begin(struct gntmap *m, struct active_entry *a, struct grant_entry_v1 *entry, bool write)
{
    int r = entry_mark(entry, m->self, write);
    if (r)
        return r;
    unsigned char *address;
    a->gfn = __atomic_load_n(&entry->frame, __ATOMIC_RELAXED); /* once, and only now that the entry is marked */
    r = frametable_pin(m->frames, a->gfn, write, &a->extent, &address);
    if (r < 0) {
        grant_word_clear(entry, access_marks(write));
        return pin_error(m, r);
    }
    return 0;
}

/* One more map of what is mapped already: the table is asked for nothing but the permission of a first writer. */
static int active_again(struct gntmap *m, struct active_entry *a, struct grant_entry_v1 *entry, bool write)
{
    if (a->extent->revoked)
        return GRANT_E_REVOKED;
    if ((write ? a->writers : a->readers) == GRANT_PINS_MAX)
        return GRANT_E_PINS;
    if (!write || a->writers)
        return 0;
    return a->extent->readonly ? GRANT_E_READONLY : entry_mark(entry, m->self, write);
}

int gntmap_map(struct gntmap *m, uint32_t gref, bool write, struct gntmap_page *out)
{
    struct grant_frame *f;
    int r = grant_frame_find(m, gref, &f);
    if (r)
        return r;
    struct active_entry *a = &f->active[gref % GRANT_PER_FRAME];
    struct grant_entry_v1 *entry = &f->entries[gref % GRANT_PER_FRAME];
    bool first = !a->extent;
    r = first ? active_begin(m, a, entry, write) : active_again(m, a, entry, write);
    if (r)
        return r;
    f->used += first;
    m->mapped++;
    if (write)
        a->writers++;
    else
        a->readers++;
    *out = (struct gntmap_page){
        .gref = gref,
        .write = write,
        .address = a->extent->address + (size_t)(a->gfn - a->extent->base_gfn) * PAGE_BYTES,
        .extent = a->extent,
    };
    return 0;
}

/* Drops one map: the flags that nobody needs any more. */
static uint32_t active_drop(struct active_entry *a, bool write)
{
    uint16_t *kind = write ? &a->writers : &a->readers;
    assert(*kind > 0);
    (*kind)--;
    uint32_t unused = write && !a->writers ? GTF_writing : 0;
    if (!a->writers && !a->readers)
        unused |= GTF_reading;
    return unused;
}

void gntmap_unmap(struct gntmap *m, const struct gntmap_page *page)
{
    uint32_t index = page->gref / GRANT_PER_FRAME, slot = page->gref % GRANT_PER_FRAME;
    assert(index < GNTTAB_FRAMES_MAX && m->frame[index]);
    struct grant_frame *f = m->frame[index];
    struct active_entry *a = &f->active[slot];
    assert(a->extent && a->extent == page->extent);
    uint32_t unused = active_drop(a, page->write);
    m->mapped--;
    if (unused & GTF_reading) {
        frametable_unpin(m->frames, take_ptr(a->extent), a->gfn);
        f->used--;
    }
    if (unused) /* last: the granter may reuse the page when it sees this */
        grant_word_clear(&f->entries[slot], unused);
    if (f->gone && f->used == 0)
        grant_frame_release(m, index);
}

int gntmap_map_many(struct gntmap *m, const uint32_t *grefs, unsigned count, bool write, struct gntmap_page *out,
                    unsigned *failed)
{
    for (unsigned i = 0; i < count; i++) {
        int r = gntmap_map(m, grefs[i], write, &out[i]);
        if (!r)
            continue;
        if (failed)
            *failed = i;
        while (i-- > 0)
            gntmap_unmap(m, &out[i]);
        return r;
    }
    return 0;
}

int gntmap_copy(struct gntmap *m, uint32_t gref, uint32_t offset_bytes, void *local, uint32_t length_bytes,
                bool to_guest)
{
    if (length_bytes == 0)
        return 0;
    if (!span_fits(offset_bytes, length_bytes, PAGE_BYTES))
        return GRANT_E_RANGE;
    struct gntmap_page page;
    int r = gntmap_map(m, gref, to_guest, &page);
    if (r)
        return r;
    if (to_guest)
        memcpy(page.address + offset_bytes, local, length_bytes);
    else
        memcpy(local, page.address + offset_bytes, length_bytes);
    gntmap_unmap(m, &page);
    return 0;
}

void gntmap_instance_gone(struct gntmap *m, uint32_t instance)
{
    for (uint32_t i = 0; i < GNTTAB_FRAMES_MAX; i++) {
        struct grant_frame *f = m->frame[i];
        if (!f || f->instance != instance)
            continue;
        f->gone = true;
        if (f->used == 0)
            grant_frame_release(m, i);
    }
    frametable_revoke(m->frames, 0, instance);
}

uint32_t gntmap_mapped(const struct gntmap *m)
{
    return m->mapped;
}

uint64_t gntmap_misses(const struct gntmap *m)
{
    return m->misses;
}

const char *grant_error_name(int code)
{
    static const char *const name[GRANT_E_COUNT_] = {
        [GRANT_E_BAD_REF] = "bad-ref",   [GRANT_E_TYPE] = "type",         [GRANT_E_DOMAIN] = "domain",
        [GRANT_E_READONLY] = "readonly", [GRANT_E_UNSTABLE] = "unstable", [GRANT_E_FRAME] = "frame",
        [GRANT_E_PINS] = "pins",         [GRANT_E_REVOKED] = "revoked",   [GRANT_E_RANGE] = "range",
    };
    return code > 0 && code < GRANT_E_COUNT_ ? name[code] : "unknown";
}

const char *grant_error_text(int code)
{
    static const char *const text[GRANT_E_COUNT_] = {
        [GRANT_E_BAD_REF] = "the grant reference is reserved or outside the grant table",
        [GRANT_E_TYPE] = "the grant entry is not one of full-page access",
        [GRANT_E_DOMAIN] = "the page is granted to another domain",
        [GRANT_E_READONLY] = "the page is granted for reading only",
        [GRANT_E_UNSTABLE] = "the grant entry kept changing while it was checked",
        [GRANT_E_FRAME] = "the grant entry names a frame that is not shared with this domain",
        [GRANT_E_PINS] = "the grant is mapped too many times",
        [GRANT_E_REVOKED] = "the owner of the page is gone or takes it back",
        [GRANT_E_RANGE] = "the copy leaves the page",
    };
    return code > 0 && code < GRANT_E_COUNT_ ? text[code] : "unknown grant error";
}
