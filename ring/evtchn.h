/* SPDX-License-Identifier: MIT */
/* ring/evtchn.h: one end of a bound event channel: a bit that the far end sets and the near end clears.
 *
 * Xen's semantics: notifications that meet a pending bit merge with it; binding sets the bit once, so a
 * consumer must expect events without cause. There is no mask: who does not want to hear does not wait.
 *
 * In the user world a direction is an eventfd that only its sender holds, watched (edge triggered) by an epoll instance
 * that only its receiver holds; the hypervisor role makes both, with a new instance for each receiver. A write makes
 * the instance readable, epoll_wait() makes it unreadable, the counter is never read. Nobody shares a file with its
 * peer, so no flag, no full counter and no lock of one side is in the other's reach:
 *   - one eventfd for both: a peer that clears O_NONBLOCK and fills the counter stops dom0 in write(2)
 *   - a pipe: the kernel holds its mutex while it copies to the peer's memory; a peer that reads into a page whose
 *     fault it never resolves (userfaultfd, FUSE) stops dom0 in write(2), O_NONBLOCK or not
 *
 * Owner: whoever bound it; evtchn_deinit() closes the descriptors (the hypervisor role unbinds the port on its own
 * message). Not thread safe, except that evtchn_notify() may be called from any thread.
 */
#ifndef RING_EVTCHN_H
#define RING_EVTCHN_H

#include "base/util.h"

struct evtchn {
    uint32_t port; /* the near end's number, of the near domain */
    int wait_fd;   /* readable: pending */
    int notify_fd; /* a 1 into it sets the peer's bit */
};

#define EVTCHN_NONE ((struct evtchn){.wait_fd = -1, .notify_fd = -1})

/* Takes both descriptors. */
void evtchn_init(struct evtchn *ch, uint32_t port, int wait_fd, int notify_fd);
void evtchn_deinit(struct evtchn *ch);

/* Makes one direction: what its receiver waits on and what its sender notifies through. 0 or -errno. */
int evtchn_direction_open(int *wait_fd, int *notify_fd);
/* Another receiver for a sender that has its descriptor already (the last receiver died); pending where the sender ever
 * notified. 0 or -errno. */
int evtchn_receiver_open(int notify_fd, int *wait_fd);

/* Sets the peer's bit: 0, or -errno for a descriptor that is none. A peer that is gone is no error (the bit is lost as
 * in Xen). Never blocks. */
int evtchn_notify(struct evtchn *ch);
/* Clears the near bit: true where it was set. Never blocks, bounded work whatever the peer does. */
bool evtchn_consume(struct evtchn *ch);
/* Is the bit set? Leaves it. */
bool evtchn_pending(const struct evtchn *ch);
/* Blocks until the bit is set (timeout_ms < 0: for ever) and clears it: 0, -ETIMEDOUT, -EINTR. For guests and tests. */
int evtchn_wait(struct evtchn *ch, int timeout_ms);

#endif
