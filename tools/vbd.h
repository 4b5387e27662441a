/* SPDX-License-Identifier: MIT */
/* tools/vbd.h: a virtual disk as the toolstack sees it: it makes the two directories, asks for a close by writing
 * Closing into the backend's state as xl does, waits, and removes both.
 *
 * A frontend that is connected gets Closing and answers when it is done; that is waited for. Where nobody holds the
 * disk, because the guest never opened it, has closed it or has no process left, there is nobody to answer: then the
 * frontend's directory goes first, and a backend closes when its peer is gone.
 *
 * Paths are composed from domids and device numbers; nothing a guest wrote is followed.
 */
#ifndef TOOLS_VBD_H
#define TOOLS_VBD_H

#include "tools/tool.h"
#include "tools/vmcfg.h"
#include "xenbus/device.h"
#include "xenbus/keys_blk_set.h"

#define VBD_READY_MS  10000 /* an image is opened in far less; then something is wrong */
#define VBD_CLOSE_MS  10000 /* as xl's */
#define VBD_CHANGE_MS 10000 /* what is under way on the disk ends first */

/* From now on SIGINT, SIGTERM and SIGHUP end the next wait below by -EINTR, so that what was begun can be undone; a
 * second one ends the program. */
void vbd_hold_signals(void);

/* The backend's end of disk `devid` of domain `front`, served by domain 0. */
void vbd_init(struct xb_device *d, struct store_client *store, uint16_t front, uint32_t devid);
/* Connects, and finds a disk of a domain by what the operator calls both: domain 0's end of it, loaded. */
int vbd_find(struct tool *t, const char *domain_name, const char *vdev, struct platform_domain *domain,
             struct xb_device *d, struct err *e);
/* Makes both directories in state 1: -EEXIST where they are there. */
int vbd_make(struct xb_device *d, const struct vmcfg_disk *disk, struct err *e);
/* Waits until the backend has taken it: 0; -EIO with the backend's reason; -ETIMEDOUT; -EINTR. */
int vbd_wait_ready(struct xb_device *d, unsigned timeout_ms, struct err *e);
/* `guest_lives`: the domain has a process that may hold it. Harmless where it is closed or gone. */
int vbd_ask_close(struct xb_device *d, bool guest_lives, struct err *e);
/* Waits for Closed: 0; -ETIMEDOUT with a sentence. */
int vbd_wait_closed(struct xb_device *d, unsigned timeout_ms, struct err *e);
/* Asks the backend for a change and waits for its answer: 0; -EIO with its reason; -ETIMEDOUT: it may do it yet. Fills
 * in set->id. */
int vbd_change(struct xb_device *d, struct keys_blk_set *set, unsigned timeout_ms, struct err *e);
/* Removes what is left of both directories and of its error nodes. */
int vbd_remove(struct xb_device *d, struct err *e);

/* The device numbers of a domain's disks, ascending, in one allocation: the count, or -errno. */
int vbd_list(struct store_client *store, uint16_t front, uint32_t **devids, struct err *e);

#endif
