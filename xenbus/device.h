/* SPDX-License-Identifier: MIT */
/* xenbus/device.h: one end of a xenbus device: where its two directories are, its state, the watch on its peer.
 *
 *   /local/domain/<F>/device/<class>/<devid>                     the frontend's, owner F, readable by B
 *   /local/domain/<B>/backend/<class>/<F>/<devid>                the backend's, owner B, readable by F
 *
 * The toolstack makes both, in one transaction (tools/). What stands in the peer's directory is the peer's to change at
 * any time: keys are read once, judged by keys_*.h, and kept as private copies (XSA-175, 178); paths are composed here
 * and never taken from a directory that the peer can write. The backend trusts its own directory (only dom0 and itself
 * write it).
 *
 * A watch tells late, so what an end saw of its peer may be past. Publishing rings and connecting to them are therefore
 * transactions whose body calls xb_device_confirm_peer(): the peer is still where it was seen, or nothing is written.
 *
 * Takeover. A backend that starts and finds its device in InitWait or Connected (its predecessor died) shows InitWait.
 * A frontend in Connected then still has the old connection's rings in its directory, with requests in them that only
 * it can replay: answers overwrite requests out of order, so a ring is no record of what is unanswered. The backend
 * waits until that frontend has shown Initialised again. In the table that pair is also the one of a frontend that
 * never shows Initialised (Mini-OS), so the difference is kept here and xb_device_reaction() is what drivers ask.
 * tests/test_xenbus.c proves both by walking all that can happen.
 *
 * A device borrows its store client, which must outlive it.
 */
#ifndef XENBUS_DEVICE_H
#define XENBUS_DEVICE_H

#include "store/client.h"
#include "xenbus/state.h"

struct xb_device {
    struct store_client *store;
    enum xb_side side;
    char class[16]; /* "vbd" */
    uint16_t front_domid, back_domid;
    uint32_t devid;
    xb_state state;      /* ours, as last written */
    xb_state peer_state; /* the peer's, as last read */
    /* Backend: our state was left by a predecessor, and neither did we connect nor was the peer seen in another state
     * than Initialised or Connected since. */
    bool peer_predates_us;
    char dir[128], peer_dir[128];
};

/* Composes both paths; touches nothing. */
void xb_device_init(struct xb_device *d, struct store_client *store, enum xb_side side, const char *class,
                    uint16_t front, uint16_t back, uint32_t devid);
/* Reads our own state key into d->state: 0; -ENOENT where the directory does not exist. */
int xb_device_load(struct xb_device *d, struct err *e);
/* Watches the peer's state with `token` (unwatch undoes); the store fires it at once. */
int xb_device_watch(struct xb_device *d, const char *token, struct err *e);
void xb_device_unwatch(struct xb_device *d, const char *token);
/* Reads the peer's state into d->peer_state (Unknown where the key is missing or no state): 0 or -errno of the store.
 */
int xb_device_read_peer(struct xb_device *d);
/* What to do now, after load and read_peer: xb_reaction() of both states, held back to XB_WAIT while a taken-over
 * frontend still shows its old connection. */
enum xb_action xb_device_reaction(const struct xb_device *d);
/* In a transaction: 0 where the peer's state is d->peer_state still; -ESTALE: read it again and ask the table anew. */
int xb_device_confirm_peer(const struct xb_device *d, store_tx tx, struct err *e);
/* In a transaction, before anything is written into our directory: 0 where it is the one that we know; -ENOENT where it
 * was removed, perhaps made anew, since a write would make it again, with permissions that nobody chose. A state of
 * Initialising is written by toolstacks only. *shown (or NULL): the state that stands there, where it was read;
 * a toolstack may have written Closing. */
int xb_device_confirm_own(const struct xb_device *d, store_tx tx, xb_state *shown, struct err *e);
/* Writes our state where xb_device_confirm_own() allows it; asserts that the table does. STORE_NO_TX: in a transaction
 * of its own. In the caller's d->state changes too: on -EAGAIN put it back. */
int xb_device_switch(struct xb_device *d, store_tx tx, xb_state to, struct err *e);
/* A fatal error, as Xen's drivers report it: the sentence into `error` of our directory and of
 * /local/domain/<us>/error/<dir>, then Closing (where the table allows it). Nothing where our directory is gone. */
void xb_device_fatal(struct xb_device *d, int code, const char *sentence);

/* Runs `body` in a transaction, again while it collides (at most XB_TX_TRIES times: then -EAGAIN). Where body returns
 * other than 0 the transaction is dropped and that returned. Unless it succeeds d->state is as before. */
#define XB_TX_TRIES 32
typedef int xb_tx_fn(struct xb_device *d, store_tx tx, void *arg, struct err *e);
int xb_transaction(struct xb_device *d, xb_tx_fn *body, void *arg, struct err *e);

#endif
