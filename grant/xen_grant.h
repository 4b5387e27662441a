/* SPDX-License-Identifier: MIT */
/* grant/xen_grant.h: Xen's grant-table ABI (<xen/grant_table.h>, version 1), in one place.
 *
 * A grant reference (gref) is frame index * GRANT_PER_FRAME + slot. References below GNTTAB_NR_RESERVED_ENTRIES (8) are
 * Xen's own.
 */
#ifndef GRANT_XEN_GRANT_H
#define GRANT_XEN_GRANT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xen/grant_table.h>

#include "base/util.h"

#define GRANT_PER_FRAME (PAGE_BYTES / sizeof(struct grant_entry_v1))

_Static_assert(sizeof(struct grant_entry_v1) == 8, "grant_table.h: v1 entry");
_Static_assert(offsetof(struct grant_entry_v1, flags) == 0 && offsetof(struct grant_entry_v1, domid) == 2 &&
                   offsetof(struct grant_entry_v1, frame) == 4,
               "grant_table.h: v1 entry");
_Static_assert(PAGE_BYTES / sizeof(struct grant_entry_v1) == 512, "512 v1 entries a frame");

#endif
