/* SPDX-License-Identifier: MIT */
#include "grant/gntmap.h"

#include <assert.h>
#include <sys/mman.h>

#include "base/span.h"
#include "grant/frametable_inner.h"
#include "grant/gntmap_active.h"

#define ACTIVE_BYTES (GREFS_MAX * sizeof(struct active_entry))

_Static_assert(GNTTAB_FRAMES_MAX <= 64, "gntmap.left has a bit for each");
_Static_assert(GRANT_PINS_MAX <= UINT16_MAX, "active_entry.maps");

int gntmap_new(const struct gntmap_ops *ops, void *ctx, uint16_t self, uint16_t granter, struct frametable *frames,
               struct gntmap **out)
{
    struct gntmap *m = calloc(1, sizeof(*m));
    void *active = mmap(NULL, ACTIVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!m || active == MAP_FAILED) {
        free(m);
        if (active != MAP_FAILED)
            munmap(active, ACTIVE_BYTES);
        return -ENOMEM;
    }
    m->active = active;
    m->ops = ops;
    m->ctx = ctx;
    m->self = self;
    m->granter = granter;
    m->frames = frames;
    *out = m;
    return 0;
}

void gntmap_share(struct gntmap *m, struct gntmarks *marks)
{
    if (m->marks == marks)
        return;
    for (uint32_t i = 0; i < GNTTAB_FRAMES_MAX; i++)
        assert(!m->frame[i].entries);
    m->marks = marks;
}

static void grant_frame_release(struct gntmap *m, uint32_t index)
{
    struct grant_frame *f = &m->frame[index];
    assert(f->used == 0);
    m->ops->grant_frame_put(m->ctx, m->granter, index, f->entries);
    if (f->marks)
        gntmarks_frame_put(m->marks, f->marks);
    *f = (struct grant_frame){0};
}

void gntmap_free(struct gntmap *m)
{
    if (!m)
        return;
    assert(gntmap_mapped(m) == 0);
    for (uint32_t i = 0; i < GNTTAB_FRAMES_MAX; i++)
        if (m->frame[i].entries)
            grant_frame_release(m, i);
    munmap(m->active, ACTIVE_BYTES);
    free(m);
}

static int grant_frame_fetch(struct gntmap *m, uint32_t index)
{
    struct gntmap_frame got = {0};
    int r = m->ops->grant_frame_get(m->ctx, m->granter, index, &got);
    if (r < 0) {
        m->misses++;
        return r == -ENOENT || r == -EACCES ? GRANT_E_BAD_REF : r;
    }
    struct gntmarks_frame *marks = NULL;
    if (m->marks && !(marks = gntmarks_frame_get(m->marks, m->granter, index, got.instance))) {
        m->ops->grant_frame_put(m->ctx, m->granter, index, got.page);
        return -ENOMEM;
    }
    m->frame[index] = (struct grant_frame){.entries = got.page, .marks = marks, .instance = got.instance};
    m->left |= got.left;
    return 0;
}

/* The grant frame of a reference. */
static int grant_frame_find(struct gntmap *m, uint32_t gref, struct grant_frame **out)
{
    uint32_t index = gref / GRANT_PER_FRAME;
    if (index >= GNTTAB_FRAMES_MAX)
        return GRANT_E_BAD_REF;
    struct grant_frame *f = *out = &m->frame[index];
    if (!f->entries)
        return grant_frame_fetch(m, index);
    return f->gone ? GRANT_E_REVOKED : 0;
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
static inline int entry_mark(struct grant_entry_v1 *entry, uint16_t self, bool write)
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

static __attribute__((noinline)) int marks_set_shared(struct gntmap *m, struct grant_frame *f, uint32_t slot,
                                                      uint32_t marks, bool write)
{
    pthread_mutex_lock(&f->marks->lock);
    int r = entry_mark(&f->entries[slot], m->self, write);
    if (!r)
        gntmarks_hold(f->marks, slot, marks);
    pthread_mutex_unlock(&f->marks->lock);
    return r;
}

static __attribute__((noinline)) void marks_clear_shared(struct grant_frame *f, uint32_t slot, uint32_t marks)
{
    pthread_mutex_lock(&f->marks->lock);
    marks = gntmarks_drop(f->marks, slot, marks);
    if (marks)
        grant_word_clear(&f->entries[slot], marks);
    pthread_mutex_unlock(&f->marks->lock);
}

/* Marks an entry for this map: `marks` are new to it. */
static inline int marks_set(struct gntmap *m, struct grant_frame *f, uint32_t slot, uint32_t marks, bool write)
{
    return f->marks ? marks_set_shared(m, f, slot, marks, write) : entry_mark(&f->entries[slot], m->self, write);
}

/* This map needs these no more. */
static inline void marks_clear(struct grant_frame *f, uint32_t slot, uint32_t marks)
{
    if (f->marks)
        marks_clear_shared(f, slot, marks);
    else
        grant_word_clear(&f->entries[slot], marks);
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

/* The first map. */
static int active_begin(struct gntmap *m, struct active_entry *a, struct grant_frame *f, uint32_t slot, bool write)
{
    int r = marks_set(m, f, slot, access_marks(write), write);
    if (r)
        return r;
    uint32_t gfn =
        __atomic_load_n(&f->entries[slot].frame, __ATOMIC_RELAXED); /* once, and only now that the entry is marked */
    struct frame_extent *extent;
    unsigned char *address;
    r = frametable_pin_short(m->frames, gfn, write, &extent, &address);
    if (r < 0) {
        marks_clear(f, slot, access_marks(write));
        return pin_error(m, r);
    }
    *a = (struct active_entry){.extent = extent, .address = address};
    return 0;
}

/* One more map of what is mapped already: the table is asked for nothing but the permission of a first writer. */
static int active_again(struct gntmap *m, struct active_entry *a, struct grant_frame *f, uint32_t slot, bool write)
{
    if (a->extent->revoked)
        return GRANT_E_REVOKED;
    if (a->maps[write] == GRANT_PINS_MAX)
        return GRANT_E_PINS;
    if (!write || a->maps[1])
        return 0;
    return a->extent->readonly ? GRANT_E_READONLY : marks_set(m, f, slot, GTF_writing, write);
}

/* What is kept for reading has a writer: kept for writing, so that the next one finds its mark. */
static void keep_upgrade(struct active_entry *a)
{
    a->maps[0]--;
    a->maps[1]++;
    a->keep_writes = true;
}

static int map_any(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write)
{
    struct grant_frame *f;
    int r = grant_frame_find(m, gref, &f);
    if (r)
        return r;
    struct active_entry *a = &m->active[gref];
    uint32_t slot = gref % GRANT_PER_FRAME;
    bool first = !a->extent;
    r = first ? active_begin(m, a, f, slot, write) : active_again(m, a, f, slot, write);
    if (r)
        return r;
    f->used += first;
    a->open |= write ? ACTIVE_READS | ACTIVE_WRITES : ACTIVE_READS;
    if (a->keep && write && !a->keep_writes)
        keep_upgrade(a);
    a->maps[write]++;
    if (keep && !a->keep)
        gntkeep_take(keep, a, gref, write);
    return 0;
}

int gntmap_map_slowly(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write)
{
    return gref < GNTTAB_NR_RESERVED_ENTRIES ? GRANT_E_BAD_REF : map_any(m, keep, gref, write);
}

static struct gntmap_page page_of(const struct active_entry *a, uint32_t gref, bool write)
{
    return (struct gntmap_page){.gref = gref, .write = write, .address = a->address, .extent = a->extent};
}

int gntmap_map_reserved(struct gntmap *m, uint32_t gref, bool write, struct gntmap_page *out)
{
    assert(gref < GNTTAB_NR_RESERVED_ENTRIES);
    int r = map_any(m, NULL, gref, write);
    if (!r)
        *out = page_of(&m->active[gref], gref, write);
    return r;
}

int gntmap_map_keeping(struct gntmap *m, struct gntkeep *keep, uint32_t gref, bool write, struct gntmap_page *out)
{
    struct active_entry *a;
    int r = active_map(m, keep, gref, write, &a);
    if (!r)
        *out = page_of(a, gref, write);
    return r;
}

/* The frame of an active entry. */
static uint32_t active_gfn(const struct active_entry *a)
{
    return a->extent->base_gfn + (uint32_t)((size_t)(a->address - a->extent->address) / PAGE_BYTES);
}

void gntmap_settle(struct gntmap *m, uint32_t gref, bool write)
{
    struct active_entry *a = &m->active[gref];
    struct grant_frame *f = &m->frame[gref / GRANT_PER_FRAME];
    uint32_t unused = write ? GTF_writing : 0;
    a->open &= (uint8_t)~ACTIVE_WRITES;
    if (!a->maps[0]) {
        unused |= GTF_reading;
        frametable_unpin_short(m->frames, a->extent, active_gfn(a));
        *a = (struct active_entry){0};
        f->used--;
    }
    marks_clear(f, gref % GRANT_PER_FRAME, unused); /* last: the granter may reuse the page then */
    if (f->gone && f->used == 0)
        grant_frame_release(m, gref / GRANT_PER_FRAME);
}

void gntmap_unmap(struct gntmap *m, const struct gntmap_page *page)
{
    assert(page->gref < GREFS_MAX && m->active[page->gref].extent == page->extent);
    active_unmap(m, page->gref, page->write);
}

void gntmap_unmap_gref(struct gntmap *m, uint32_t gref, bool write)
{
    active_unmap(m, gref, write);
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

int gntmap_copy_keeping(struct gntmap *m, struct gntkeep *keep, uint32_t gref, uint32_t offset_bytes, void *local,
                        uint32_t length_bytes, bool to_guest)
{
    if (length_bytes == 0)
        return 0;
    if (!span_fits(offset_bytes, length_bytes, PAGE_BYTES))
        return GRANT_E_RANGE;
    struct active_entry *a;
    int r = active_map(m, keep, gref, to_guest, &a);
    if (r)
        return r;
    if (to_guest)
        memcpy(a->address + offset_bytes, local, length_bytes);
    else
        memcpy(local, a->address + offset_bytes, length_bytes);
    active_unmap(m, gref, to_guest);
    return 0;
}

/* The marks of an entry that maps of this process rely on. */
static uint32_t marks_ours(const struct gntmap *m, uint32_t index, uint32_t slot)
{
    if (m->frame[index].marks)
        return gntmarks_held(m->frame[index].marks, slot);
    const struct active_entry *a = &m->active[index * GRANT_PER_FRAME + slot];
    return a->extent ? access_marks(a->maps[1]) : 0;
}

/* Clears marks that are not ours. */
static void marks_take_over(struct gntmap *m, uint32_t index)
{
    struct grant_frame *f = &m->frame[index];
    if (f->marks)
        pthread_mutex_lock(&f->marks->lock);
    for (uint32_t i = 0; i < GRANT_PER_FRAME; i++) {
        uint32_t seen = grant_word_load(&f->entries[i]) & (GTF_reading | GTF_writing);
        uint32_t theirs = seen & ~marks_ours(m, index, i);
        if (theirs)
            grant_word_clear(&f->entries[i], theirs);
    }
    if (f->marks)
        pthread_mutex_unlock(&f->marks->lock);
}

void gntmap_take_over(struct gntmap *m)
{
    for (uint32_t index = 0; m->left && index < GNTTAB_FRAMES_MAX; index++) {
        uint64_t bit = 1ull << index;
        if (!(m->left & bit))
            continue;
        if (m->frame[index].entries || !grant_frame_fetch(m, index))
            marks_take_over(m, index);
        m->left &= ~bit;
    }
}

static void grant_frame_gone(struct gntmap *m, uint32_t index)
{
    struct grant_frame *f = &m->frame[index];
    f->gone = true;
    if (f->used == 0) {
        grant_frame_release(m, index);
        return;
    }
    for (uint32_t i = 0; i < GRANT_PER_FRAME; i++) {
        struct active_entry *a = &m->active[index * GRANT_PER_FRAME + i];
        if (a->extent)
            a->open = ACTIVE_GONE;
    }
}

void gntmap_instance_gone(struct gntmap *m, uint32_t instance)
{
    for (uint32_t i = 0; i < GNTTAB_FRAMES_MAX; i++)
        if (m->frame[i].entries && m->frame[i].instance == instance)
            grant_frame_gone(m, i);
    frametable_revoke(m->frames, 0, instance);
}

uint32_t gntmap_mapped(const struct gntmap *m)
{
    uint32_t maps = 0;
    for (uint32_t gref = 0; gref < GREFS_MAX; gref++) {
        if (!m->frame[gref / GRANT_PER_FRAME].used)
            gref += GRANT_PER_FRAME - 1;
        else
            maps += m->active[gref].maps[0] + m->active[gref].maps[1];
    }
    return maps;
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
        [GRANT_E_FAULT] = "bus-fault",
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
        [GRANT_E_FAULT] = "the IOMMU does not allow the device that at this bus address",
    };
    return code > 0 && code < GRANT_E_COUNT_ ? text[code] : "unknown grant error";
}
