/* SPDX-License-Identifier: MIT */
/* tests/blkworld.h: a world with the block backend in it: a process with the real hypervisor and store, a process that
 * is the blk role, and guests whose rings are driven by hand.
 *
 * The test process is the toolstack (domain 0), and may be any number of guests. Its children are itself, executed
 * anew: a test program's main() begins with blkworld_child(). Whatever does not come within BLKWORLD_PATIENCE_MS fails
 * the test; nothing else depends on time.
 */
#ifndef TESTS_BLKWORLD_H
#define TESTS_BLKWORLD_H

#include <sys/types.h>

#include "grant/window.h"
#include "platform/platform.h"
#include "ring/blkreq.h"
#include "ring/ring.h"
#include "xenbus/keys_blk.h"
#include "xenbus/stats_blk.h"

#define BLKWORLD_PATIENCE_MS 20000
#define BLKWORLD_PAGES       256 /* of data, of a guest's disk */
#define BLKWORLD_RING_PAGES  16
#define BLKWORLD_INDIRECT    32                                        /* pages of segments, used in turn */
#define BLKWORLD_DATA_PAGE   (BLKWORLD_RING_PAGES + BLKWORLD_INDIRECT) /* the first of data in a guest's memory */
#define BLKWORLD_DEVID       51712u                                    /* xvda */

struct blkworld {
    char dir[256];
    pid_t servers, role;
    int servers_stop, role_stop; /* closed: the child ends */
    int journal_fd;              /* backend/blk/journal.h: of all roles, as the supervisor keeps it */
    struct platform *platform;   /* domain 0 */
    struct store_client *store;
};

/* In a child: does its work and does not return. */
void blkworld_child(int argc, char **argv);

/* Hypervisor and store, without the role. */
void blkworld_servers(struct blkworld *w);
void blkworld_start(struct blkworld *w, const char *poll);
/* Ends all; the role and the servers must end well. */
void blkworld_stop(struct blkworld *w);
void blkworld_role_start(struct blkworld *w, const char *poll);
void blkworld_role_start_with(struct blkworld *w, const char *poll, unsigned reactors);
void blkworld_role_stop(struct blkworld *w); /* asked to, and it must end with 0 */
void blkworld_role_kill(struct blkworld *w);
/* Starts this program again with these arguments, NULL-terminated: its pid; *ready is a pipe that it may write into. */
pid_t blkworld_spawn(const char *const *args, int *ready, int *stop);
/* A process that is the domain, does I/O on BLKWORLD_DEVID with a full ring for ever, and is connected already. */
pid_t blkworld_guest_process(const char *domain_dir);
/* Its main; tests/blkguest.c. */
int blkguest_main(const char *domain_dir, int ready);

/* Waiting by looking again: an end of patience, and a short sleep that fails the test, naming `what`, behind that end.
 */
uint64_t blkworld_patience_end(void);
void blkworld_nap(uint64_t end_ns, const char *what);
void blkworld_store_ok(int rc);
/* The first line that a shell command of one argument prints: false where it fails. */
bool blkworld_shell(char *out, size_t size, const char *format, const char *arg);
void blkworld_kill(pid_t pid); /* SIGKILL, and waits */

uint16_t blkworld_domain(struct blkworld *w, const char *name, char *dir, size_t size);
/* A file of `bytes` in the world's directory, filled from a pattern that depends on the sector and `seed`. */
void blkworld_image(struct blkworld *w, const char *name, uint64_t bytes, unsigned seed, char *path, size_t size);
void blkworld_pattern(void *to, uint64_t sector, unsigned count, unsigned seed);
/* What the toolstack writes; config->online is set. */
void blkworld_attach(struct blkworld *w, uint16_t domid, uint32_t devid, struct keys_blk_config *config);
void blkworld_remove(struct blkworld *w, uint16_t domid, uint32_t devid);
/* What the blk role of a run directory tells of a disk: false where it tells nothing (no role, no such disk). */
bool blkworld_stats(const char *run_dir, uint16_t domid, uint32_t devid, struct stats_blk_reply *out);
/* A number of it by its name, also of a kind of error or fault. Fails the test where there is none. */
uint64_t blkworld_number(const struct stats_blk_reply *r, const char *name);
/* The backend's state, or one of its numbers once that is `at_least`. */
void blkworld_wait_back(struct blkworld *w, uint16_t domid, uint32_t devid, xb_state state);
bool blkworld_back_is(struct blkworld *w, uint16_t domid, uint32_t devid, xb_state state);
uint64_t blkworld_stat(struct blkworld *w, uint16_t domid, uint32_t devid, const char *word, uint64_t at_least);
/* The text of the backend's `error` key ("": none). */
void blkworld_error(struct blkworld *w, uint16_t domid, uint32_t devid, char *out, size_t size);
/* Extents that grantees hold of the domain: 0 once a backend has given all back. */
uint32_t blkworld_held(struct blkworld *w, uint16_t domid);
void blkworld_wait_held(struct blkworld *w, uint16_t domid, uint32_t count);

/* ---- a guest and its one disk ---- */

struct blkguest {
    struct platform *platform;
    struct store_client *store;
    struct xb_device xb;
    struct platform_extent memory;           /* ring, indirect pages, data */
    uint32_t order;                          /* of the ring that it offers: 0 after the open */
    bool persistent;                         /* it says feature-persistent: not after the open */
    bool scattered;                          /* the ring's pages lie in memory in another order than in the ring */
    struct grant_window window;              /* over them */
    uint32_t ring_gref[BLKWORLD_RING_PAGES]; /* [0] 0: not granted */
    uint32_t indirect_gref[BLKWORLD_INDIRECT];
    uint32_t gref[BLKWORLD_PAGES];
    unsigned char *data;
    uint64_t indirect_next;
    struct evtchn channel;
    struct ring_front ring;
    const struct blk_protocol *protocol;
    bool fua, write_zeroes; /* extensions that it takes */
    bool bus;               /* and bus addresses: gref[] of the data are then bus pages, to be mapped by the test */
    uint64_t bus_address;   /* of the last response of a map */
    struct keys_blk_disk disk;
    uint64_t next_id;
};

void blkguest_open(struct blkguest *g, const char *domain_dir, uint32_t devid);
/* From Initialising to Connected, on a fresh ring. `protocol`: the key's value, NULL: absent. */
void blkguest_connect(struct blkguest *g, const char *protocol);
/* Publishes a fresh ring and Initialised, without waiting for the backend. */
void blkguest_offer(struct blkguest *g, const char *protocol);
void blkguest_wait_connected(struct blkguest *g);
/* Takes the ring's grant and the channel back; the backend has let go of both. */
void blkguest_ring_end(struct blkguest *g);
/* Closing, Closed; the grants are free afterwards. */
void blkguest_disconnect(struct blkguest *g);
void blkguest_close(struct blkguest *g);
void blkguest_switch(struct blkguest *g, xb_state to);

/* Puts a request whose segments are whole sectors [first, last] of consecutive data pages from `page`. Its id. */
uint64_t blkguest_put(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                      unsigned first, unsigned last);
uint64_t blkguest_put_raw(struct blkguest *g, const struct blkreq *req);
/* A discard or write-zeroes. */
uint64_t blkguest_put_span(struct blkguest *g, uint8_t operation, uint64_t sector, uint64_t count, uint8_t flag);
int16_t blkguest_do_span(struct blkguest *g, uint8_t operation, uint64_t sector, uint64_t count, uint8_t flag);
/* The same as an indirect request, of 1 … BLKREQ_INDIRECT_SEGMENTS_MAX segments; of these at most BLKWORLD_INDIRECT may
 * be in flight. */
uint64_t blkguest_put_indirect(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                               unsigned first, unsigned last);
/* The page of segments that the next of them uses. */
struct blkif_request_segment *blkguest_indirect_page(struct blkguest *g);
/* Map, of grants that the next of the indirect pages lists, and unmap. The ids. */
uint64_t blkguest_put_map(struct blkguest *g, const uint32_t *grefs, unsigned count, uint64_t address, uint8_t access);
uint64_t blkguest_put_unmap(struct blkguest *g, uint64_t address, uint64_t count);
/* put, kick, take: the status; of a map that was done g->bus_address says where. */
int16_t blkguest_do_map(struct blkguest *g, const uint32_t *grefs, unsigned count, uint64_t address, uint8_t access);
int16_t blkguest_do_unmap(struct blkguest *g, uint64_t address, uint64_t count);
void blkguest_kick(struct blkguest *g); /* publishes, notifies where it is asked for */
/* The next response, whichever it is; fails the test when none comes. */
int16_t blkguest_take(struct blkguest *g, uint64_t *id);
/* put, kick, take: the status. */
int16_t blkguest_do(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                    unsigned first, unsigned last);
int16_t blkguest_do_indirect(struct blkguest *g, uint8_t operation, uint64_t sector, unsigned page, unsigned segments,
                             unsigned first, unsigned last);
/* Reads sector 0 … of the disk and compares with the pattern: the disk is served. */
void blkguest_check_served(struct blkguest *g, unsigned seed);

#endif
