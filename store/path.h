/* SPDX-License-Identifier: MIT */
/* store/path.h: what a caller calls a node, made absolute and checked.
 *
 * A path is '/'-separated names of A-Z a-z 0-9 - _ @, without empty names and without a '/' at its end; "/" is the
 * root. A path without '/' in front is relative to the caller's own /local/domain/<domid>. A name that begins with '@'
 * is a special node (@introduceDomain, @releaseDomain): it has permissions and watches and neither value nor parent.
 *
 * The text comes from a peer: it may be of any length up to a payload. Limits hold before and after it is made
 * absolute: XENSTORE_REL_PATH_MAX for what was given as relative, XENSTORE_ABS_PATH_MAX for the result, and the
 * caller's quota for the result without a "/local/domain/<domid>/" in front, as in the reference server.
 */
#ifndef STORE_PATH_H
#define STORE_PATH_H

#include "base/util.h"
#include <xen/io/xs_wire.h>

#define STORE_DOMID_MAX 0x7fefu /* DOMID_FIRST_RESERVED of <xen/xen.h> less one */

struct store_path {
    size_t length;   /* without the NUL */
    size_t relative; /* bytes that were put in front of what the caller gave, 0 for an absolute path */
    bool special;
    char text[XENSTORE_ABS_PATH_MAX + 1];
};

/* 0, or EINVAL for the peer. `max_bytes` is the caller's quota, 0 for none. */
int store_path_resolve(struct store_path *out, const char *given, unsigned domid, unsigned max_bytes);
/* Of a watch: any name that begins with '@', of at most XENSTORE_REL_PATH_MAX bytes. 0, or EINVAL for the peer. */
int store_path_special(struct store_path *out, const char *given);
/* The length of the parent's path within the same text; of "/", and of a special node, 0: there is none. */
size_t store_path_parent(const char *text, size_t length);
/* Writes the last name's offset; the name ends at `length`. */
size_t store_path_name_offset(const char *text, size_t length);

#endif
