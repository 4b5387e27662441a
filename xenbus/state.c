/* SPDX-License-Identifier: MIT */
/* xenbus/state.c: the two tables. docs/xenbus.md shows them as printed by tests/test_xenbus.c, which also walks the
 * product of both machines.
 *
 * Why a transition stands in the table or does not:
 *   x → 6          from 5 only, also for a device that never connected: a peer that waits sees Closing first, always
 *   back 1 → 5     setup failed before anything was announced (no such image); Xen's drivers show Closing there too
 *   back 2 → 2     a backend that was restarted before it was connected announces again
 *   back 4 → 4     a resize: `sectors` is rewritten, then the state, so that the frontend's watch fires
 *   front x → 1    a guest starts over whatever its predecessor left behind; the backend answers with RESET
 *   front 1 → 1    the same, where there is nothing to leave behind
 *   4 → 6, back 5 → 2, 5 → 4    never: what was mapped is released between 5 and 6
 * States that an end of ours never takes (front 2; back 3; 7 and 8, reconfiguration) allow nothing but starting over.
 */
#include "xenbus/state.h"

#include <string.h>

#include "base/parse.h"

#define TO(s) (1u << XenbusState##s)

static const uint16_t transition[2][XB_STATES] = {
    [XB_FRONT][XenbusStateUnknown] = TO(Initialising),
    [XB_FRONT][XenbusStateInitialising] = TO(Initialising) | TO(Initialised) | TO(Closing),
    [XB_FRONT][XenbusStateInitWait] = TO(Initialising),
    [XB_FRONT][XenbusStateInitialised] = TO(Initialising) | TO(Connected) | TO(Closing),
    [XB_FRONT][XenbusStateConnected] = TO(Initialising) | TO(Initialised) | TO(Closing),
    [XB_FRONT][XenbusStateClosing] = TO(Initialising) | TO(Closed),
    [XB_FRONT][XenbusStateClosed] = TO(Initialising),
    [XB_FRONT][XenbusStateReconfiguring] = TO(Initialising),
    [XB_FRONT][XenbusStateReconfigured] = TO(Initialising),

    [XB_BACK][XenbusStateInitialising] = TO(InitWait) | TO(Closing),
    [XB_BACK][XenbusStateInitWait] = TO(InitWait) | TO(Connected) | TO(Closing),
    [XB_BACK][XenbusStateConnected] = TO(InitWait) | TO(Connected) | TO(Closing),
    [XB_BACK][XenbusStateClosing] = TO(Closed),
    [XB_BACK][XenbusStateClosed] = TO(InitWait),
};

/* [mine][peer]; what is not named is XB_WAIT. Unknown as the peer's state is a directory that is gone.
 *
 * A frontend in Initialising does not close when it sees Closing or Closed: that is the end of its predecessor's
 * connection, and the backend will come to InitWait. */
static const uint8_t front_reaction[XB_STATES][XB_STATES] = {
    [XenbusStateInitialising][XenbusStateInitWait] = XB_ANNOUNCE,

    [XenbusStateInitialised][XenbusStateUnknown] = XB_CLOSE,
    [XenbusStateInitialised][XenbusStateConnected] = XB_CONNECT,
    [XenbusStateInitialised][XenbusStateClosing] = XB_CLOSE,
    [XenbusStateInitialised][XenbusStateClosed] = XB_CLOSE,

    [XenbusStateConnected][XenbusStateUnknown] = XB_CLOSE,
    [XenbusStateConnected][XenbusStateInitWait] = XB_RECONNECT,
    [XenbusStateConnected][XenbusStateClosing] = XB_CLOSE,
    [XenbusStateConnected][XenbusStateClosed] = XB_CLOSE,

    [XenbusStateClosing][XenbusStateUnknown] = XB_CLOSED,
    [XenbusStateClosing][XenbusStateClosing] = XB_CLOSED,
    [XenbusStateClosing][XenbusStateClosed] = XB_CLOSED,
};

/* A backend in Closing waits for Closed, where a frontend takes Closing for enough: a frontend that shows Closing may
 * still have users (its guest holds the disk open). */
static const uint8_t back_reaction[XB_STATES][XB_STATES] = {
    [XenbusStateInitialising][XenbusStateUnknown... XenbusStateReconfigured] = XB_ANNOUNCE,

    [XenbusStateInitWait][XenbusStateUnknown] = XB_CLOSED,
    [XenbusStateInitWait][XenbusStateInitialised] = XB_CONNECT,
    /* Initialised was missed, or is never shown (Mini-OS); after a takeover see device.h. */
    [XenbusStateInitWait][XenbusStateConnected] = XB_CONNECT,
    [XenbusStateInitWait][XenbusStateClosing] = XB_CLOSED,
    [XenbusStateInitWait][XenbusStateClosed] = XB_CLOSED,

    [XenbusStateConnected][XenbusStateUnknown] = XB_CLOSE,
    [XenbusStateConnected][XenbusStateInitialising] = XB_RESET,
    [XenbusStateConnected][XenbusStateClosing] = XB_CLOSE,
    [XenbusStateConnected][XenbusStateClosed] = XB_CLOSE,

    [XenbusStateClosing][XenbusStateUnknown] = XB_CLOSED,
    [XenbusStateClosing][XenbusStateInitialising] = XB_RESET,
    [XenbusStateClosing][XenbusStateClosed] = XB_CLOSED,

    [XenbusStateClosed][XenbusStateInitialising] = XB_REINIT,
};

static const char *const state_names[XB_STATES] = {
    [XenbusStateUnknown] = "Unknown",
    [XenbusStateInitialising] = "Initialising",
    [XenbusStateInitWait] = "InitWait",
    [XenbusStateInitialised] = "Initialised",
    [XenbusStateConnected] = "Connected",
    [XenbusStateClosing] = "Closing",
    [XenbusStateClosed] = "Closed",
    [XenbusStateReconfiguring] = "Reconfiguring",
    [XenbusStateReconfigured] = "Reconfigured",
};

static const char *const action_names[] = {
    [XB_WAIT] = "wait",   [XB_ANNOUNCE] = "announce", [XB_CONNECT] = "connect", [XB_RECONNECT] = "reconnect",
    [XB_CLOSE] = "close", [XB_CLOSED] = "closed",     [XB_REINIT] = "reinit",   [XB_RESET] = "reset",
};

/* An enum holds what somebody put there. */
static bool in_table(xb_state s)
{
    return (unsigned)s < XB_STATES;
}

bool xb_transition_allowed(enum xb_side side, xb_state from, xb_state to)
{
    return in_table(from) && in_table(to) && (transition[side][from] >> to & 1);
}

enum xb_action xb_reaction(enum xb_side side, xb_state mine, xb_state peer)
{
    if (!in_table(mine) || !in_table(peer))
        return XB_WAIT;
    return (enum xb_action)(side == XB_FRONT ? front_reaction : back_reaction)[mine][peer];
}

const char *xb_state_name(xb_state s)
{
    return in_table(s) ? state_names[s] : "?";
}

const char *xb_action_name(enum xb_action a)
{
    return (unsigned)a < ARRAY_SIZE(action_names) ? action_names[a] : "?";
}

xb_state xb_state_parse(const char *text)
{
    uint64_t n;
    if (strpbrk(text, "xX") || parse_u64(text, XenbusStateInitialising, XenbusStateReconfigured, &n))
        return XenbusStateUnknown;
    return (xb_state)n;
}
