/* SPDX-License-Identifier: MIT */
/* platform/user.h: the user world's state: one connection to the hypervisor role.
 *
 *   user.c          the row: connection, events, event channels, domains
 *   user_give.c     the granting side: own extents, the grant table and its frames
 *   user_take.c     the mapping side: a frame table and a grant map for each domain that is mapped
 *   user_space.c    where in this process their memory goes
 *
 * Everything here is bookkeeping about mappings of this process. The hypervisor role decides what exists and who may
 * have it; what a hostile domain can do is make lookups fail.
 */
#ifndef PLATFORM_USER_H
#define PLATFORM_USER_H

#include "base/list.h"
#include "base/map.h"
#include "hypervisor/client.h"
#include "platform/row.h"

struct user {
    struct platform base;
    struct hvclient *hv;
    char *dir; /* run directory, or the domain's */
    /* granting */
    struct gnttab *table;
    struct list pages; /* of user_page: what we made and mapped, extents and grant frames */
    /* mapping */
    struct map maps; /* domid → user_map */
};

static inline struct user *user_of(struct platform *p)
{
    return container_of(p, struct user, base);
}

/* A shared mapping of the descriptor, which is closed in either case. NULL with errno. */
void *user_mmap(int fd, uint32_t frame_count, bool readonly);

int user_give_init(struct user *u);
void user_give_deinit(struct user *u);
int user_extent_alloc(struct platform *p, uint16_t grantee, uint32_t frame_count, bool readonly,
                      struct platform_extent *out, struct err *e);
void user_extent_free(struct platform *p, struct platform_extent *x);

void user_take_deinit(struct user *u);
int user_gntmap_get(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames, struct err *e);
void user_gntmap_put(struct platform *p, uint16_t domid);
/* Events. */
void user_take_instance_gone(struct user *u, uint16_t domid, uint32_t instance);
void user_take_extent_revoked(struct user *u, uint16_t domid, uint32_t extent_id);

#endif
