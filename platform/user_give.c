/* SPDX-License-Identifier: MIT */
/* platform/user_give.c: the granting side: own extents, the grant table and its frames. */
#include "platform/user.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define POPULATE_FRAMES_MAX 4096u /* 16 MiB; larger extents are paged in as they are used */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct user_page { /* one mapping */
    struct list link;
    void *address;
    uint32_t frame_count;
    uint32_t extent_id; /* 0: a grant frame */
};

/* Keeps the mapping for user_give_deinit(). */
static int page_keep(struct user *u, void *address, uint32_t frame_count, uint32_t extent_id)
{
    struct user_page *k = malloc(sizeof(*k));
    if (!k)
        return -ENOMEM;
    *k = (struct user_page){.address = address, .frame_count = frame_count, .extent_id = extent_id};
    list_append(&u->pages, &k->link);
    return 0;
}

static void page_drop(struct user_page *k)
{
    list_remove(&k->link);
    munmap(k->address, (size_t)k->frame_count * PAGE_BYTES);
    free(k);
}

/* gnttab_ops.frame_new */
static int frame_new(void *ctx, uint16_t grantee, uint32_t *index, void **page, struct err *e)
{
    struct user *u = ctx;
    struct hv_extent frame;
    int fd, r = hvclient_grant_frame_new(u->hv, grantee, &frame, &fd, e);
    if (r < 0)
        return r;
    void *address = user_mmap(fd, 1, false);
    r = address ? page_keep(u, address, 1, 0) : -errno;
    if (r < 0) { /* the frame stays in our account until we close: no operation gives one back */
        if (address)
            munmap(address, PAGE_BYTES);
        return err_set(e, r, "cannot map a grant-table frame: %s", strerror(-r));
    }
    *index = frame.id;
    *page = address;
    return 0;
}

static const struct gnttab_ops gnttab_ops_user = {.frame_new = frame_new};

int user_give_init(struct user *u)
{
    return gnttab_new(&gnttab_ops_user, u, &u->table);
}

void user_give_deinit(struct user *u)
{
    gnttab_free(u->table);
    struct user_page *k, *tmp;
    list_foreach_safe (k, tmp, &u->pages, link)
        page_drop(k);
}

/* Has the kernel find the memory now, so that there is an error instead of a fault later. */
static int populate(void *address, uint32_t frame_count)
{
    if (frame_count > POPULATE_FRAMES_MAX)
        return 0;
    if (madvise(address, (size_t)frame_count * PAGE_BYTES, MADV_POPULATE_WRITE) == 0 || errno == EINVAL)
        return 0; /* EINVAL: before Linux 5.14 */
    return -errno;
}

int user_extent_alloc(struct platform *p, uint16_t grantee, uint32_t frame_count, bool readonly,
                      struct platform_extent *out, struct err *e)
{
    struct user *u = user_of(p);
    struct hv_extent x;
    int fd, r = hvclient_extent_alloc(u->hv, grantee, frame_count, readonly, &x, &fd, e);
    if (r < 0)
        return r;
    _cleanup_close_ int seal_fd = readonly ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    void *address = user_mmap(fd, frame_count, false);
    r = address ? populate(address, frame_count) : -errno;
    if (r < 0)
        err_set(e, r, "cannot map an extent of %u frames: %s", frame_count, strerror(-r));
    if (r == 0 && readonly)
        r = hvclient_extent_seal(u->hv, x.id, seal_fd, e);
    if (r == 0)
        r = page_keep(u, address, frame_count, x.id);
    if (r < 0) {
        if (address)
            munmap(address, (size_t)frame_count * PAGE_BYTES);
        hvclient_extent_free(u->hv, x.id, NULL);
        return r;
    }
    *out = (struct platform_extent){.id = x.id,
                                    .base_gfn = x.base_gfn,
                                    .frame_count = frame_count,
                                    .grantee = grantee,
                                    .readonly = readonly,
                                    .address = address};
    return 0;
}

void user_extent_free(struct platform *p, struct platform_extent *x)
{
    struct user *u = user_of(p);
    struct user_page *k, *tmp;
    list_foreach_safe (k, tmp, &u->pages, link) {
        if (k->extent_id != x->id || !x->id)
            continue;
        page_drop(k);
        hvclient_extent_free(u->hv, x->id, NULL);
        return;
    }
}
