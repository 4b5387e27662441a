/* SPDX-License-Identifier: MIT */
#include "hypervisor/extent.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/span.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

struct hold { /* one instance of the grantee has the descriptor */
    struct extent *extent;
    struct instance *holder;
    struct list extent_link, holder_link;
};

int extent_fd_reopen(int fd, int flags)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    return r < 0 ? -errno : r;
}

static int memory_make(uint32_t frame_count, bool readonly)
{
    int fd = memfd_create("domzero", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create("domzero", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | (readonly ? 0 : F_SEAL_SEAL);
    if (ftruncate(fd, (off_t)frame_count * PAGE_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int account_ask(const struct domain *d, enum extent_kind kind, uint32_t frame_count, uint32_t *limit)
{
    int r = domain_may(d, HV_LIMIT_DESCRIPTORS, 1, limit);
    if (r == 0 && kind == EXTENT_GRANT_FRAME)
        r = domain_may(d, HV_LIMIT_GRANT_FRAMES, 1, limit);
    if (r == 0 && kind == EXTENT_DATA)
        r = domain_may(d, HV_LIMIT_EXTENTS, 1, limit);
    if (r == 0 && kind == EXTENT_DATA)
        r = domain_may(d, HV_LIMIT_FRAMES, frame_count, limit);
    return r;
}

static void account_book(const struct extent *x, void (*book)(struct domain *d, enum hv_limit what, uint32_t n))
{
    book(x->domain, HV_LIMIT_DESCRIPTORS, 1);
    if (x->kind == EXTENT_GRANT_FRAME) {
        book(x->domain, HV_LIMIT_GRANT_FRAMES, 1);
    } else {
        book(x->domain, HV_LIMIT_EXTENTS, 1);
        book(x->domain, HV_LIMIT_FRAMES, x->frame_count);
    }
}

/* Numbers: neither ids nor frames of a domain come again, so a stale name never meets other memory. */
static int names_take(struct extent *x)
{
    struct domain *d = x->domain;
    if (x->kind == EXTENT_GRANT_FRAME) {
        int64_t index = idalloc_get(&d->grant_indexes);
        x->id = index < 0 ? 0 : (uint32_t)index;
        return index < 0 ? (int)index : 0;
    }
    if (!span_fits(d->next_gfn, x->frame_count, UINT32_MAX) || d->next_extent_id == UINT32_MAX)
        return -ENOSPC;
    x->id = d->next_extent_id++;
    x->base_gfn = d->next_gfn;
    d->next_gfn += x->frame_count;
    return 0;
}

int extent_alloc(struct instance *i, enum extent_kind kind, uint16_t grantee, bool readonly, uint32_t frame_count,
                 struct extent **out, int *fd, uint32_t *limit)
{
    struct domain *d = i->domain;
    if (frame_count == 0)
        return -EINVAL;
    if (!domain_find(d->h, grantee, false))
        return -ENOENT;
    int r = account_ask(d, kind, frame_count, limit);
    if (r < 0)
        return r;
    if (frame_count > EXTENT_FRAMES_MAX)
        return -EINVAL;
    _cleanup_close_ int memory = memory_make(frame_count, readonly);
    _cleanup_close_ int owners = memory < 0 ? -1 : extent_fd_reopen(memory, O_RDWR);
    if (memory < 0 || owners < 0)
        return memory < 0 ? memory : owners;
    _cleanup_free_ struct extent *x = malloc(sizeof(*x));
    if (!x)
        return -ENOMEM;
    *x = (struct extent){.kind = kind,
                         .frame_count = frame_count,
                         .domain = d,
                         .instance = i,
                         .instance_number = i->number,
                         .grantee = grantee,
                         .readonly = readonly,
                         .shared = !readonly};
    r = names_take(x);
    if (r < 0)
        return r;
    x->fd = take_fd(&memory);
    *fd = take_fd(&owners);
    list_init(&x->holds);
    list_append(&d->extents, &x->domain_link);
    list_append(&i->extents, &x->instance_link);
    account_book(x, domain_use);
    *out = take_ptr(x);
    return 0;
}

static struct extent *find_by_id(struct domain *d, enum extent_kind kind, uint32_t id)
{
    struct extent *x;
    list_foreach (x, &d->extents, domain_link) {
        if (x->kind == kind && x->id == id)
            return x;
    }
    return NULL;
}

/* What a grantee may have: live, sealed, and containing the frame (or being the grant frame of that index). */
static struct extent *find_shared(struct domain *d, enum extent_kind kind, uint32_t key)
{
    struct extent *x;
    list_foreach (x, &d->extents, domain_link) {
        if (x->kind != kind || !x->instance || !x->shared)
            continue;
        if (kind == EXTENT_GRANT_FRAME ? x->id == key
                                       : key >= x->base_gfn && span_fits(key - x->base_gfn, 1, x->frame_count))
            return x;
    }
    return NULL;
}

static struct hold *find_hold(struct extent *x, const struct instance *holder)
{
    struct hold *o;
    list_foreach (o, &x->holds, extent_link) {
        if (o->holder == holder)
            return o;
    }
    return NULL;
}

static void extent_destroy(struct extent *x)
{
    struct domain *d = x->domain;
    if (x->kind == EXTENT_GRANT_FRAME)
        idalloc_put(&d->grant_indexes, x->id);
    account_book(x, domain_unuse);
    list_remove(&x->domain_link);
    close(x->fd);
    free(x);
    domain_settle(d);
}

static void hold_end(struct hold *o)
{
    struct extent *x = o->extent;
    list_remove(&o->extent_link);
    list_remove(&o->holder_link);
    free(o);
    if (!x->instance && list_empty(&x->holds))
        extent_destroy(x);
}

/* The owner's part ends; the extent does where nobody holds it. */
static void give_back(struct extent *x)
{
    x->instance = NULL;
    list_remove(&x->instance_link);
    if (list_empty(&x->holds))
        extent_destroy(x);
}

static int find_own(struct instance *i, uint32_t id, struct extent **out)
{
    *out = find_by_id(i->domain, EXTENT_DATA, id);
    if (!*out || !(*out)->instance)
        return -ENOENT;
    return (*out)->instance == i ? 0 : -EACCES;
}

int extent_seal(struct instance *i, uint32_t id)
{
    struct extent *x;
    int r = find_own(i, id, &x);
    if (r < 0 || x->shared)
        return r;
    int seals = fcntl(x->fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    if ((seals & HV_SEALS_READONLY) != HV_SEALS_READONLY)
        return -EPERM;
    x->shared = true;
    return 0;
}

int extent_free(struct instance *i, uint32_t id)
{
    struct extent *x;
    int r = find_own(i, id, &x);
    if (r < 0)
        return r;
    struct hold *o;
    list_foreach (o, &x->holds, extent_link)
        instance_event(o->holder, HV_EXTENT_REVOKED, x->domain->domid, x->id);
    give_back(x);
    return 0;
}

int extent_map(struct instance *i, enum extent_kind kind, uint16_t owner, uint32_t key, struct extent **out, int *fd)
{
    struct domain *d = domain_find(i->domain->h, owner, false);
    struct extent *x = d ? find_shared(d, kind, key) : NULL;
    if (!x || x->grantee != i->domain->domid)
        return -ENOENT;
    _cleanup_close_ int theirs = extent_fd_reopen(x->fd, x->readonly ? O_RDONLY : O_RDWR);
    if (theirs < 0)
        return theirs;
    if (!find_hold(x, i)) {
        struct hold *o = malloc(sizeof(*o));
        if (!o)
            return -ENOMEM;
        *o = (struct hold){.extent = x, .holder = i};
        list_append(&x->holds, &o->extent_link);
        list_append(&i->holds, &o->holder_link);
    }
    *fd = take_fd(&theirs);
    *out = x;
    return 0;
}

int extent_put(struct instance *i, enum extent_kind kind, uint16_t owner, uint32_t id)
{
    struct domain *d = domain_find(i->domain->h, owner, true);
    struct extent *x = d ? find_by_id(d, kind, id) : NULL;
    struct hold *o = x ? find_hold(x, i) : NULL;
    if (!o)
        return -ENOENT;
    hold_end(o);
    return 0;
}

/* Held by nobody, or by i alone. */
static bool held_by_no_other(const struct extent *x, const struct instance *i)
{
    const struct hold *o;
    list_foreach (o, &x->holds, extent_link) {
        if (o->holder != i)
            return false;
    }
    return true;
}

uint64_t extent_left_take(const struct instance *i, struct extent *x)
{
    uint64_t left = 0;
    struct extent *y;
    list_foreach (y, &x->domain->extents, domain_link) {
        if (y->kind == EXTENT_GRANT_FRAME && y->left && y->instance && y->grantee == i->domain->domid && y->id < 64 &&
            held_by_no_other(y, i))
            left |= 1ull << y->id;
    }
    if (held_by_no_other(x, i))
        x->left = false;
    return left;
}

void extent_describe(const struct extent *x, struct hv_extent *out)
{
    *out = (struct hv_extent){.id = x->id,
                              .base_gfn = x->base_gfn,
                              .frame_count = x->frame_count,
                              .instance = x->instance_number,
                              .readonly = x->readonly};
}

void extent_tell_holders(struct instance *i, void (*tell)(struct instance *holder, struct instance *gone))
{
    struct extent *x;
    list_foreach (x, &i->extents, instance_link) {
        struct hold *o;
        list_foreach (o, &x->holds, extent_link)
            tell(o->holder, i);
    }
}

void extent_release_all(struct instance *i)
{
    while (!list_empty(&i->holds)) {
        struct hold *o = list_entry(i->holds.next, struct hold, holder_link);
        o->extent->left = true;
        hold_end(o);
    }
    while (!list_empty(&i->extents))
        give_back(list_entry(i->extents.next, struct extent, instance_link));
}

void extent_forget_grantee(struct hypervisor *h, uint16_t domid)
{
    for (struct domain *d = domain_next(h, 0); d; d = domain_next(h, d->domid + 1u)) {
        struct extent *x;
        list_foreach (x, &d->extents, domain_link) {
            if (x->grantee == domid)
                x->grantee = HV_DOMID_NONE;
        }
    }
}

uint32_t extent_held_count(const struct domain *d)
{
    uint32_t held = 0;
    struct extent *x;
    list_foreach (x, &d->extents, domain_link)
        held += x->kind == EXTENT_DATA && !list_empty(&x->holds);
    return held;
}
