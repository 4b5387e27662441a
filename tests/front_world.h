/* SPDX-License-Identifier: MIT */
/* tests/front_world.h: a whole dom0 for tests of the guest library: hypervisor and store in one child process, the
 * toolstack's steps here, and a block backend that misbehaves on request in a child of its own, so that it can be
 * killed.
 *
 * The backend is no part of the product: it speaks the protocol from the same seams (ring_back_*, gntmap, xenbus
 * tables), keeps its disk in memory that outlives it, and polls the store instead of watching it, so that no process
 * forks with a thread of libxenstore's in it. What it is to do and what it saw is in `struct back_shared`, which both
 * sides map.
 */
#ifndef TESTS_FRONT_WORLD_H
#define TESTS_FRONT_WORLD_H

#include <stdatomic.h>
#include <sys/types.h>

#include "domzero/domzero.h"
#include "platform/platform.h"
#include "ring/ring.h"
#include "xenbus/keys_blk.h"

#define BACK_DISK_BYTES (8u << 20)
#define FRONT_DEVID     51712u /* xvda */

/* How the backend answers; `after` requests are served well first. */
enum back_mode {
    BACK_GOOD,
    BACK_HOLD,         /* takes requests, answers none until the mode changes */
    BACK_DIE,          /* kills itself with requests taken and unanswered, pages mapped */
    BACK_BAD_ID,       /* an id out of nowhere */
    BACK_BAD_ID_NEXT,  /* the next, then it holds on; what it held stays held */
    BACK_DOUBLE,       /* answers one of those it held twice, then none */
    BACK_STALE,        /* answers a request, then, when its slot is in use again, once more with the old id */
    BACK_WRONG_OP,     /* another operation than was asked */
    BACK_GARBAGE_PROD, /* a response index far ahead */
    BACK_UNTOLD,       /* answers before anything was asked */
    BACK_ERROR,        /* BLKIF_RSP_ERROR */
    BACK_EOPNOTSUPP,   /* BLKIF_RSP_EOPNOTSUPP */
    BACK_STORM,        /* ten thousand events before each response, and while maps are held */
    BACK_NO_UNMAP,     /* closes, but keeps the ring page mapped */
};

/* How it answers a map of bus addresses. */
enum back_map_mode {
    BACK_MAP_GOOD,
    BACK_MAP_HOLD,       /* not, until the mode changes */
    BACK_MAP_REFUSED,    /* BLKIF_RSP_ERROR */
    BACK_MAP_NOTHING,    /* address 0 */
    BACK_MAP_MISALIGNED, /* within a page */
    BACK_MAP_BEYOND,     /* the last page behind what the device reaches */
    BACK_MAP_WRAPS,      /* at the end of 64 bits */
    BACK_MAP_OVERLAP,    /* all pieces at one address */
    BACK_MAP_ELSEWHERE,  /* not where it was asked to */
    BACK_MAP_TWICE,      /* the first one answered a second time */
    BACK_MAP_WRONG_OP,   /* as another operation */
    BACK_MAP_BAD_ID,     /* an id of no map */
    BACK_MAP_RUNS_AHEAD, /* a response index far ahead */
};

struct back_shared {
    _Atomic int mode, map_mode;
    _Atomic unsigned after;
    _Atomic bool detach; /* the toolstack wants the disk back */
    struct keys_blk_disk disk;
    struct keys_blk_features features;
    /* seen */
    _Atomic unsigned taken, answered, connected, notified, indirect, durable;
    _Atomic unsigned taken_by[KEYS_BLK_QUEUES_MAX]; /* queue by queue */
    _Atomic bool persistent;                        /* the frontend said feature-persistent */
    _Atomic unsigned held;                          /* taken and not answered now */
    _Atomic unsigned storms;                        /* of BACK_STORM */
    _Atomic unsigned list_rest;                     /* what pages of references hold beside these */
    _Atomic bool bus;                               /* the frontend takes bus addresses */
    _Atomic unsigned maps, mapped_pages;            /* requests; pages mapped since the backend's start */
    _Atomic uint64_t wanted[2], mapped[2];          /* of the first two maps of a connection: addresses in bytes */
    _Atomic bool out_of_order;  /* a write came before an older one to a lower sector: see the replay's test */
    uint64_t sectors_seen[256]; /* of the first requests taken since the backend's start */
    _Atomic unsigned seen;
    unsigned char data[BACK_DISK_BYTES];
};

struct front_world {
    char run_dir[64], domain_dir[256];
    pid_t servers, backend;
    struct platform *platform; /* domain 0's */
    struct store_client *store;
    uint16_t domid;
    struct back_shared *back;
};

/* cmocka's setup and teardown; *state is the world. It has one guest, domain `domid`, with disk xvda. */
int front_world_setup(void **state);
int front_world_teardown(void **state);

/* Puts xvda's directories into the state in which the toolstack makes them. */
void front_world_disk_create(struct front_world *w);
/* Removes them, as a toolstack that forces a detach. */
void front_world_disk_remove(struct front_world *w);
/* Both ends' states as the store has them. */
xb_state front_world_front_state(struct front_world *w);
xb_state front_world_back_state(struct front_world *w);
struct xb_device front_world_device(struct front_world *w);

void front_world_backend_start(struct front_world *w, enum back_mode mode, unsigned after);
void front_world_backend_kill(struct front_world *w); /* SIGKILL; waits */
void front_world_backend_reap(struct front_world *w); /* waits for one that kills itself */
void front_world_mode(struct front_world *w, enum back_mode mode, unsigned after);
/* Hypervisor and store die. */
void front_world_servers_kill(struct front_world *w);
/* Waits, without limit but the test's, until the counter has reached n. */
void front_world_until(const _Atomic unsigned *counter, unsigned n);

/* tests/front_back.c: never returns. */
void front_back_run(struct front_world *w) __attribute__((noreturn));

#endif
