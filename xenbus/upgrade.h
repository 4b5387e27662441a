/* SPDX-License-Identifier: MIT */
/* xenbus/upgrade.h: how the toolstack asks dom0's daemon to go on with another binary.
 *
 * RUN_DIR/domzerod.sock is the supervisor's, mode 0600, SEQPACKET. One query, one reply, and it hangs up; a query while
 * another is served waits. Both ends check magic and length, so that a tool and a daemon of different versions find it
 * out. Strings are terminated by who reads them.
 */
#ifndef XENBUS_UPGRADE_H
#define XENBUS_UPGRADE_H

#include <stdint.h>

#define UPGRADE_SOCKET "domzerod.sock"
#define UPGRADE_MAGIC  0x32677064u /* changes with any layout below */

struct upgrade_query {
    uint32_t magic, length_bytes;
    char role[16];     /* "blk" or "store" */
    char program[512]; /* absolute; "": the one that the daemon was started as, as it is now */
};

struct upgrade_reply {
    uint32_t magic, length_bytes;
    int32_t result;                 /* 0, or a negative errno: `text` says why, and whether the old one serves */
    uint32_t pid_before, pid_after; /* the same where the process goes on as the other binary */
    uint32_t killed;                /* the old one did not end in time: some I/O of its does not end */
    uint64_t stop_ns;               /* CLOCK_MONOTONIC: the old one was told to end */
    uint64_t served_ns;             /* … and the new one had taken over */
    char text[320];
};

#endif
