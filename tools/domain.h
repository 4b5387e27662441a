/* SPDX-License-Identifier: MIT */
/* tools/domain.h: a domain's life as the toolstack makes it: record, store access and nodes, in this order, and back in
 * the reverse one. */
#ifndef TOOLS_DOMAIN_H
#define TOOLS_DOMAIN_H

#include "tools/tool.h"

#define DOMAIN_CLOSE_MS 5000 /* a guest's last chance to close its disks when it is destroyed; a deadline for all */
#define DOMAIN_FORCE_MS 3000 /* and the backends' to let go of what a guest did not close */

/* Creates and introduces it and makes /local/domain/<domid>: all or nothing. */
int domain_make(struct tool *t, const char *name, uint16_t *domid, struct err *e);
/* Takes everything away: disks, nodes, store access, the record. Goes on past failures; the first is returned. */
int domain_unmake(struct tool *t, uint16_t domid, bool guest_lives, struct err *e);

#endif
