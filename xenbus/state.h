/* SPDX-License-Identifier: MIT */
/* xenbus/state.h: the xenbus state machine as data.
 *
 * Both ends of a device hold a state (<xen/io/xenbus.h>, 1 Initialising … 6 Closed) in the `state` key of their own
 * directory; an end writes only its own and watches the other's. Two tables say all: which transitions an end may make
 * (a bit mask by old state), and what an end does in a state when it sees the peer in a state (a reaction). Whoever
 * changes state asks the table; nothing else in the project compares states.
 *
 *   usual life      front 1 → 3 → 4 → 5 → 6      back 1 → 2 → 4 → 5 → 6
 *   again           front 6 → 1                   back 6 → 2 (while `online` is 1)
 *   a backend that was restarted under a connected frontend: back 4 → 2 (takeover), front 4 → 3 (reconnect, replay)
 *
 * Closing goes 4 → 5 → 6, never 4 → 6: an end shows Closing, waits for the other (a frontend for Closing or Closed, a
 * backend for Closed), then shows Closed.
 */
#ifndef XENBUS_STATE_H
#define XENBUS_STATE_H

#include "base/err.h"
#include <xen/io/xenbus.h>

typedef enum xenbus_state xb_state;
#define XB_STATES 9

enum xb_side { XB_FRONT, XB_BACK };

enum xb_action {
    XB_WAIT,      /* nothing to do in this pair of states */
    XB_ANNOUNCE,  /* back: publish features, 2 InitWait; front: publish rings, 3 Initialised */
    XB_CONNECT,   /* back: read the peer's keys, map, publish the disk, 4; front: read the disk, 4 */
    XB_RECONNECT, /* front only: the backend was restarted: publish fresh rings, 3, replay */
    XB_CLOSE,     /* show 5 Closing, stop I/O, release */
    XB_CLOSED,    /* release what is left, show 6 Closed */
    XB_REINIT,    /* the peer starts over after a close: back 6 → 2 */
    XB_RESET,     /* back only: the frontend started over without closing: release, 5, 6, then as it asks */
};

bool xb_transition_allowed(enum xb_side side, xb_state from, xb_state to);
enum xb_action xb_reaction(enum xb_side side, xb_state mine, xb_state peer);
const char *xb_state_name(xb_state s); /* "Connected"; "?" for what is no state */
const char *xb_action_name(enum xb_action a);
/* Text of a state key to a state: whole decimal number of 1 … 8, else XenbusStateUnknown. */
xb_state xb_state_parse(const char *text);

#endif
