/* SPDX-License-Identifier: MIT */
/* bench/guest_idle.c: many guests that have a disk and do nothing: `guest_idle VDEV DOMAIN_DIR...` opens that disk of
 * each domain, says "connected" with the milliseconds that it took, and holds them all until its input ends. */
#include <domzero/domzero.h>

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/util.h"

struct idler {
    struct dz_domain *dom;
    struct dz_vbd *disk;
};

/* A disk that has worked once, then rests. */
static int idler_open(struct idler *g, const char *vdev, const char *domain_dir)
{
    if (dz_domain_open(domain_dir, &g->dom) < 0 || dz_vbd_open(g->dom, vdev, NULL, &g->disk) < 0)
        return -1;
    char *page = dz_buffer_alloc(g->disk, PAGE_BYTES);
    int r = page ? dz_vbd_read(g->disk, page, PAGE_BYTES, 0) : -ENOMEM;
    dz_buffer_free(g->disk, page, PAGE_BYTES);
    return r;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s VDEV DOMAIN_DIR...\n", argv[0]);
        return 2;
    }
    int count = argc - 2, status = 0;
    _cleanup_free_ struct idler *guests = calloc((size_t)count, sizeof(*guests));
    assert(guests);
    uint64_t start = clock_now_ns();
    for (int i = 0; i < count && !status; i++)
        if (idler_open(&guests[i], argv[1], argv[2 + i]) < 0) {
            fprintf(stderr, "guest_idle: %s: %s\n", argv[2 + i], dz_error());
            status = 1;
        }
    if (!status) {
        printf("connected %.0f\n", (double)(clock_now_ns() - start) / 1e6);
        fflush(stdout);
        while (getchar() != EOF)
            continue;
    }
    for (int i = 0; i < count; i++) {
        dz_vbd_close(guests[i].disk);
        dz_domain_close(guests[i].dom);
    }
    return status;
}
