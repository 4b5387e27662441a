/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <time.h>

#include "tests/front_guest.h"

void guest_open_with(struct front_world *w, struct guest *g, const struct dz_vbd_options *options)
{
    if (dz_domain_open(w->domain_dir, &g->dom) < 0 || dz_vbd_open(g->dom, "xvda", options, &g->disk) < 0)
        fail_msg("%s", dz_error());
}

void guest_open(struct front_world *w, struct guest *g)
{
    guest_open_with(w, g, &(struct dz_vbd_options){.timeout_ms = 30000});
}

struct holdings {
    uint16_t domid;
    struct platform_domain found;
};

static void holdings_see(void *ctx, const struct platform_domain *d)
{
    struct holdings *h = ctx;
    if (d->domid == h->domid)
        h->found = *d;
}

struct platform_domain holdings(struct front_world *w)
{
    struct holdings h = {.domid = w->domid};
    struct err e = {""};
    if (platform_domain_list(w->platform, holdings_see, &h, &e) < 0)
        fail_msg("%s", e.text);
    return h.found;
}

void guest_close(struct front_world *w, struct guest *g)
{
    dz_vbd_close(g->disk);
    dz_domain_close(g->dom);
    struct platform_domain d = holdings(w);
    while (d.instances) { /* the hypervisor hears of the closed connection when it is its turn */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        d = holdings(w);
    }
    assert_int_equal(d.ports, 0);
}

void fill(unsigned char *p, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)((i * 2654435761u + seed * 97 + i / 4096) >> 3);
}

void submit(struct guest *g, struct dz_io *io)
{
    if (dz_vbd_submit(g->disk, io) < 0)
        fail_msg("%s", dz_error());
}

unsigned drain(struct guest *g)
{
    struct dz_io *done[DEPTH];
    unsigned total = 0;
    for (int n; (n = dz_vbd_wait(g->disk, done, DEPTH, -1)) > 0;)
        total += (unsigned)n;
    return total;
}

void guest_detached(struct front_world *w, struct guest *g)
{
    struct dz_io io[4];
    static unsigned char data[4][512];
    front_world_backend_start(w, BACK_HOLD, 0);
    guest_open(w, g);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = (struct dz_io){DZ_READ, data[i], 512, i * 512, NULL, 1, {0}};
        submit(g, &io[i]);
    }
    dz_vbd_kick(g->disk);
    front_world_until(&w->back->held, 4);
    w->back->detach = true;
    assert_int_equal(drain(g), 4);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++)
        assert_int_equal(io[i].result, 0);
    while (dz_vbd_read(g->disk, data[0], 512, 0) != -ENODEV)
        ;
}
