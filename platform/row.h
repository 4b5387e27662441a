/* SPDX-License-Identifier: MIT */
/* platform/row.h: what a row of the platform table implements; for rows only.
 *
 * A row's own struct begins with a struct platform, whose fields the row's open() fills. Each function does what
 * platform.h says of its namesake, without its checks of arguments.
 */
#ifndef PLATFORM_ROW_H
#define PLATFORM_ROW_H

#include "platform/platform.h"

struct platform {
    const struct platform_ops *ops;
    struct platform_listener listener;
    uint16_t domid;
    uint32_t instance;
};

struct platform_ops {
    const char *name;
    int (*open)(const struct platform_where *where, struct platform **out, struct err *e);
    void (*close)(struct platform *p);
    int (*fd)(const struct platform *p);
    int (*step)(struct platform *p);
    int (*store_open)(struct platform *p, struct store_client **out, struct err *e);
    int (*extent_alloc)(struct platform *p, uint16_t grantee, uint32_t frame_count, bool readonly,
                        struct platform_extent *out, struct err *e);
    void (*extent_free)(struct platform *p, struct platform_extent *x);
    struct gnttab *(*gnttab)(struct platform *p);
    int (*evtchn_alloc_unbound)(struct platform *p, uint16_t remote, struct evtchn *out, struct err *e);
    int (*evtchn_bind_interdomain)(struct platform *p, uint16_t remote, uint32_t remote_port, struct evtchn *out,
                                   struct err *e);
    void (*evtchn_close)(struct platform *p, struct evtchn *ch);
    int (*evtchn_status)(struct platform *p, uint32_t port, uint32_t *instance);
    int (*gntmap_get)(struct platform *p, uint16_t domid, struct gntmap **map, struct frametable **frames,
                      struct err *e);
    void (*gntmap_put)(struct platform *p, uint16_t domid);
    int (*domain_create)(struct platform *p, const char *name, uint16_t *domid, char *domain_dir, size_t dir_size,
                         struct err *e);
    int (*domain_destroy)(struct platform *p, uint16_t domid, struct err *e);
    int (*domain_list)(struct platform *p, void (*fn)(void *ctx, const struct platform_domain *d), void *ctx,
                       struct err *e);
    int (*watch_domains)(struct platform *p);
};

#define PLATFORM(name) extern const struct platform_ops platform_##name;
#include "platform/platform_list.h"
#undef PLATFORM

/* For rows: tell the listener. */
void platform_tell_instance_gone(struct platform *p, uint16_t domid, uint32_t instance);
void platform_tell_domain_gone(struct platform *p, uint16_t domid);

#endif
