/* SPDX-License-Identifier: MIT */
/* bench/attack/dom0.h: dom0's side of the attack bench: the daemon's own data path, walked by hand.
 *
 * The queue is backend/blk/blkqueue.h, its ring, codec, indirect pages, grant map, frame table, DMA row and io_uring
 * are the production ones; what stands around it is a platform whose memory is the machine's, and storage that waits
 * (gate.h). Here is the reactor's loop (engine.h) in single steps, so that an attack can act between any two of them,
 * as a guest acts when it likes:
 *
 *   dom0_take()    requests are copied out, checked, and made operations of the kernel's ring
 *   dom0_submit()  the kernel has them; they wait at the gate
 *   dom0_finish()  the gate is opened, completions are handled, answers written
 *
 * Where the rules say so the device stands behind the software IOMMU, by bus addresses: one unit, a space for the
 * attacker's device, made anew with each connection, and one of another device, the victim's, with frames of the
 * victim's behind the very bus addresses that the attacker uses.
 *
 * `struct dom0_rules` is what is under attack: a row of the table, or a mutant of one (tests/mutants/). One thread.
 */
#ifndef ATTACK_DOM0_H
#define ATTACK_DOM0_H

#define DOM0_DEVICE_ATTACKER 51712u
#define DOM0_DEVICE_VICTIM   51728u
#define DOM0_BUS_BITS        32u /* of the attacker's device */
#define DOM0_VICTIM_PAGES    64u /* of the victim's space, from bus page 1 on */

#include "backend/blk/blkqueue.h"
#include "base/ticker.h"
#include "bench/attack/gate.h"
#include "bench/attack/machine.h"
#include "platform/row.h"

struct dom0_rules {
    const char *name;
    const struct dma_strategy *dma;
    bool iommu;    /* there is one, and what `bus` and `deferred` say is to be tried in turn (table.h) */
    bool bus;      /* requests name bus addresses; otherwise grants */
    bool deferred; /* unmaps are, until a flush */
    bool sealed;   /* the image needs stable data (gate.h): the attack's to say */
    /* The production functions where NULL. */
    void (*revoke)(struct frametable *t, uint32_t extent_id, uint32_t instance);
    unsigned (*take)(struct blkqueue *q);
};

struct dom0 {
    struct platform platform;
    struct machine *machine;
    struct dom0_rules rules;
    struct frametable *frames;
    struct gntmap *map;
    struct ticker ticker;
    struct mailbox to_control, to_reactor;
    struct iommu *unit;
    struct iommu_space *space, *victims; /* of the two devices; NULL where there are no bus addresses */
    struct reactor reactor;
    struct blkqueue *queue;
    struct gate gate;
    int told_fd;                       /* the far end of the queue's notifications */
    uint32_t ring_slot;                /* where the next request lies in the ring's page */
    uint32_t indirect_gref, list_gref; /* the attacker's pages of segments and of references */
};

/* 0, or an error with a sentence: then the program is to end. */
int dom0_open(struct dom0 *d, struct machine *m, const struct dom0_rules *rules, struct err *e);
void dom0_close(struct dom0 *d);
/* A fresh ring where the last one is broken, or soon would be for its unknown references. */
void dom0_refresh(struct dom0 *d);

void dom0_take(struct dom0 *d);
void dom0_submit(struct dom0 *d);
/* Opens the gate. */
void dom0_land(struct dom0 *d, unsigned char byte);
/* The answers that there are become the guest's to see. */
void dom0_publish(struct dom0 *d);
/* Waits for all that is under way, and publishes. */
void dom0_finish(struct dom0 *d);
/* The attacker gives the frame back; true: it has another owner already. */
bool dom0_release(struct dom0 *d, uint32_t frame);

#endif
