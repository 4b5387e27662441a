/* SPDX-License-Identifier: MIT */
/* base/log.h: one line a message on stderr, `domzerod[blk] warning: text`.
 *
 * The data path never logs. What a peer can provoke is logged through log_peer(), which lets LOG_PEER_BURST
 * lines through each second for each limiter and counts the rest, so a hostile guest cannot fill a disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/util.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

#define LOG_PEER_BURST 5 /* lines a second and limiter: enough to see what happens, too few to matter */

/* One for each peer (device, connection); all zeroes is the start. */
struct log_limiter {
    uint64_t window_start_ns;
    unsigned in_window;
    uint64_t suppressed;
};

/* Sets the name in front of each line (borrowed for ever) and the most verbose level that is printed. */
void log_setup(const char *name, enum log_level level);
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
void log_peer(struct log_limiter *limiter, const char *fmt, ...) PRINTF(2, 3);

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)

#endif
