/* SPDX-License-Identifier: MIT */
/* tools/blkrate.h: what a disk did between two looks at its counters. Pure arithmetic.
 *
 * Without an earlier look, or where the earlier one is of another life of the device (a role that was started again
 * counts from zero), the interval is the device's whole life.
 */
#ifndef TOOLS_BLKRATE_H
#define TOOLS_BLKRATE_H

#include "xenbus/stats_blk.h"

struct blkrate {
    double seconds;
    double reads_s, writes_s; /* requests a second; a flush is a write */
    double read_mib_s, write_mib_s;
    double average_us, p50_us, p99_us;      /* of all that ended in the interval; 0 where nothing did */
    double notifications_request;           /* in both directions, for each request */
    uint64_t requests, in_flight, problems; /* problems: errors and faults, in the device's whole life */
};

void blkrate_between(const struct stats_blk_reply *before, const struct stats_blk_reply *now, struct blkrate *out);

#endif
