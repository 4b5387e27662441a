/* SPDX-License-Identifier: MIT */
/* grant/gntkeep.h: grants that stay mapped between requests: what Xen's block protocol calls persistent grants.
 *
 * A keep is one device's (one of its rings') and holds one map of its own on each reference that it keeps. So while a
 * reference is kept its active entry is in force, and a map by a request finds it there: a look at private memory,
 * nothing is read from the granter's table and nothing written into it. There is no second cache and no second set of
 * rules: gntmap.h says all. A reference has one keep at the most; who else maps it has the use of it.
 *
 * What follows for the granter, as in Xen: the marks of a kept reference stay, so its end is refused (-EBUSY) until
 * the keep lets go; and an entry that is pointed elsewhere meanwhile changes nothing, the page is that of the first
 * map. A reference that was kept for reading and is needed for writing is asked for again by the rules of a first
 * writer, and kept for writing then.
 *
 * Bounds: pages_max references. A full keep gives back one that was not used lately (second chance: a hand goes round,
 * what was used since it came by last is passed over once, at most GNTKEEP_LOOKS at a time) or, where it finds none,
 * does not keep the new one, which then is mapped as without a keep. What was not used for GNTKEEP_IDLE_S goes, and
 * what its owner takes back or dies with goes at once, both in gntkeep_tick(); everything goes with the keep. The
 * keep's memory is four bytes a page, and the memory that it holds is the granter's, on the granter's account.
 */
#ifndef GRANT_GNTKEEP_H
#define GRANT_GNTKEEP_H

#include "grant/gntmap.h"

#define GNTKEEP_IDLE_S 10 /* long for a disk that is in use, short for who waits for its pages; Linux has 60 */
#define GNTKEEP_LOOKS  8  /* unmeasured: bounds what one request may cost */

struct gntkeep_stats {
    uint64_t hits;      /* maps by requests that found a kept reference */
    uint64_t evictions; /* given back to make room */
    uint64_t expiries;  /* given back because it was not used for long, or its owner wanted it back */
};

/* `m` is borrowed until gntkeep_free(). 0 or -ENOMEM. */
int gntkeep_new(struct gntmap *m, uint32_t pages_max, struct gntkeep **out);
void gntkeep_free(struct gntkeep *k); /* gives all back; NULL is fine */
/* Tells the time, in seconds of any clock, and gives back what is due; what was used since the last tick was used just
 * now. Once a second while anything is kept. */
void gntkeep_tick(struct gntkeep *k, uint64_t now_s);
uint32_t gntkeep_pages(const struct gntkeep *k); /* kept now */
struct gntkeep_stats gntkeep_stats(const struct gntkeep *k);

#endif
