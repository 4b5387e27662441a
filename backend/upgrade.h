/* SPDX-License-Identifier: MIT */
/* backend/upgrade.h: a running role is replaced by another binary's, under load. The store goes on as that binary in
 * its own process and is only asked to (live.h); the blk role has a successor:
 *
 *   1  the new binary starts as a role that stands by: it has connected to hypervisor and store, made its io_uring and
 *      opened the journal, and says so. That is its check; whatever else it does, it is killed, and the old one
 *      has not noticed
 *   2  the old one is told to end: it takes nothing more, lets its I/O end, answers it, leaves the devices as they are
 *   3  the new one is told to serve: it takes the devices over as after any restart, guests see a pause
 *
 * From 3 on the role is restarted from the new binary. Where that ends before it serves, the old binary is started.
 *
 * The supervisor's loop stands still meanwhile: at most SUPERVISOR_STANDBY_MS + _STOP_MS + _READY_MS.
 */
#ifndef BACKEND_UPGRADE_H
#define BACKEND_UPGRADE_H

#include "backend/child.h"
#include "xenbus/upgrade.h"

#define SUPERVISOR_STANDBY_MS 10000

struct upgrade;

/* Serves RUN_DIR/domzerod.sock (xenbus/upgrade.h) for those children, which it borrows. 0, or -errno with a sentence.
 */
int upgrade_new(struct loop *loop, struct child *children, unsigned count, struct upgrade **out, struct err *e);
void upgrade_free(struct upgrade *u); /* NULL is fine */

#endif
