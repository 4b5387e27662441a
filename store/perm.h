/* SPDX-License-Identifier: MIT */
/* store/perm.h: who may do what with a node.
 *
 * A node has a list of (domid, access). The first entry names the owner, who may do everything, and its access is what
 * every domain gets that no later entry names. Domain 0 may do everything everywhere. A domain that was
 * given a target (SET_TARGET) has the target's rights as well. On the wire an entry is 'n', 'r', 'w' or 'b' and a
 * decimal domid.
 */
#ifndef STORE_PERM_H
#define STORE_PERM_H

#include "store/path.h"

enum store_access { STORE_READ = 1, STORE_WRITE = 2, STORE_OWNER = 4, STORE_ALL = 7 };

#define STORE_PERMS_MAX (XENSTORE_PAYLOAD_MAX / 3) /* the shortest entry has a letter, a digit and a NUL */

struct store_perm {
    uint16_t domid;
    uint8_t access; /* STORE_READ | STORE_WRITE */
};

struct store_actor {
    unsigned domid;
    unsigned target; /* its own domid where it has none */
};

static inline bool store_actor_privileged(const struct store_actor *who)
{
    return who->domid == 0;
}

/* The accesses (enum store_access) that `who` has. */
unsigned store_perms_access(const struct store_perm *perms, unsigned count, const struct store_actor *who);
/* NUL-terminated entries, at least one, into `out` of STORE_PERMS_MAX. 0, or EINVAL for the peer. */
int store_perms_parse(const char *text, size_t length, struct store_perm *out, unsigned *count);
/* One entry as text with its NUL into `out` of at least 8 bytes; the bytes written. */
size_t store_perm_format(const struct store_perm *perm, char *out);
/* A decimal domid of 0 … STORE_DOMID_MAX. 0, or EINVAL for the peer. */
int store_domid_parse(const char *text, unsigned *out);

#endif
