/* SPDX-License-Identifier: MIT */
#include "xenbus/device.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void xb_device_init(struct xb_device *d, struct store_client *store, enum xb_side side, const char *class,
                    uint16_t front, uint16_t back, uint32_t devid)
{
    assert(strlen(class) < sizeof(d->class));
    *d = (struct xb_device){.store = store, .side = side, .front_domid = front, .back_domid = back, .devid = devid};
    strcpy(d->class, class);
    char *front_dir = side == XB_FRONT ? d->dir : d->peer_dir;
    char *back_dir = side == XB_FRONT ? d->peer_dir : d->dir;
    snprintf(front_dir, sizeof(d->dir), "/local/domain/%u/device/%s/%u", front, class, devid);
    snprintf(back_dir, sizeof(d->dir), "/local/domain/%u/backend/%s/%u/%u", back, class, front, devid);
}

int xb_device_load(struct xb_device *d, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, STORE_NO_TX, &text, NULL, "%s/state", d->dir);
    if (r < 0)
        return err_set(e, r, "%s/state cannot be read (%s): the toolstack makes a device's directories", d->dir,
                       strerror(-r));
    d->state = xb_state_parse(text);
    d->peer_predates_us = d->side == XB_BACK && d->state != XenbusStateInitialising;
    return 0;
}

int xb_device_watch(struct xb_device *d, const char *token, struct err *e)
{
    int r = store_watch(d->store, token, "%s/state", d->peer_dir);
    return r < 0 ? err_set(e, r, "cannot watch %s/state: %s", d->peer_dir, strerror(-r)) : 0;
}

void xb_device_unwatch(struct xb_device *d, const char *token)
{
    store_unwatch(d->store, token, "%s/state", d->peer_dir);
}

static int read_peer_state(const struct xb_device *d, store_tx tx, xb_state *out)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, tx, &text, NULL, "%s/state", d->peer_dir);
    /* Where the directory is gone, xenstored says EACCES to a domain that may not read its parent either. */
    if (r < 0 && r != -ENOENT && r != -EACCES)
        return r;
    *out = r < 0 ? XenbusStateUnknown : xb_state_parse(text);
    return 0;
}

int xb_device_read_peer(struct xb_device *d)
{
    int r = read_peer_state(d, STORE_NO_TX, &d->peer_state);
    if (r < 0)
        return r;
    if (d->peer_state != XenbusStateConnected && d->peer_state != XenbusStateInitialised)
        d->peer_predates_us = false;
    return 0;
}

enum xb_action xb_device_reaction(const struct xb_device *d)
{
    if (d->peer_predates_us && d->state == XenbusStateInitWait && d->peer_state == XenbusStateConnected)
        return XB_WAIT;
    return xb_reaction(d->side, d->state, d->peer_state);
}

int xb_device_confirm_peer(const struct xb_device *d, store_tx tx, struct err *e)
{
    xb_state now;
    int r = read_peer_state(d, tx, &now);
    if (r < 0)
        return err_set(e, r, "%s/state cannot be read: %s", d->peer_dir, strerror(-r));
    if (now != d->peer_state)
        return err_set(e, -ESTALE, "%s went from %s to %s meanwhile", d->peer_dir, xb_state_name(d->peer_state),
                       xb_state_name(now));
    return 0;
}

int xb_device_confirm_own(const struct xb_device *d, store_tx tx, xb_state *shown, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    int r = store_read(d->store, tx, &text, NULL, "%s/state", d->dir);
    if (r < 0)
        return err_set(e, r, "%s/state cannot be read: %s", d->dir, strerror(-r));
    const xb_state state = xb_state_parse(text);
    if (shown)
        *shown = state;
    bool anew = d->side == XB_BACK && d->state != XenbusStateInitialising && state == XenbusStateInitialising;
    return anew ? err_set(e, -ENOENT, "%s was removed, and made anew", d->dir) : 0;
}

static int switch_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    const xb_state to = *(const xb_state *)arg;
    int r = xb_device_confirm_own(d, tx, NULL, e);
    if (r < 0)
        return r;
    r = store_printf(d->store, tx, d->dir, "state", "%d", (int)to);
    if (r < 0)
        return err_set(e, r, "cannot show %s in %s/state: %s", xb_state_name(to), d->dir, strerror(-r));
    d->state = to;
    return 0;
}

int xb_device_switch(struct xb_device *d, store_tx tx, xb_state to, struct err *e)
{
    assert(xb_transition_allowed(d->side, d->state, to));
    int r = tx == STORE_NO_TX ? xb_transaction(d, switch_body, &to, e) : switch_body(d, tx, &to, e);
    if (r == 0 && to == XenbusStateConnected)
        d->peer_predates_us = false;
    return r;
}

struct fatal {
    int code;
    const char *sentence;
};

static int fatal_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    const struct fatal *f = arg;
    unsigned us = d->side == XB_FRONT ? d->front_domid : d->back_domid;
    char home[32], error_dir[sizeof(d->dir) + sizeof("/error")];
    int n = snprintf(home, sizeof(home), "/local/domain/%u/", us);
    snprintf(error_dir, sizeof(error_dir), "%serror/%s", home, d->dir + n);
    int r = xb_device_confirm_own(d, tx, NULL, e);
    /* As Xen's drivers write it: the number, positive, then the words. */
    r = r ? r : store_printf(d->store, tx, d->dir, "error", "%d %s", abs(f->code), f->sentence);
    return r ? r : store_printf(d->store, tx, error_dir, "error", "%d %s", abs(f->code), f->sentence);
}

void xb_device_fatal(struct xb_device *d, int code, const char *sentence)
{
    struct fatal f = {code, sentence};
    /* Whoever reads the words is not there to be told that writing them failed. */
    xb_transaction(d, fatal_body, &f, NULL);
    if (xb_transition_allowed(d->side, d->state, XenbusStateClosing))
        xb_device_switch(d, STORE_NO_TX, XenbusStateClosing, NULL);
}

int xb_transaction(struct xb_device *d, xb_tx_fn *body, void *arg, struct err *e)
{
    const xb_state before = d->state;
    for (unsigned i = 0; i < XB_TX_TRIES; i++) {
        store_tx tx;
        int r = store_tx_start(d->store, &tx);
        if (r < 0)
            return err_set(e, r, "cannot start a store transaction for %s: %s", d->dir, strerror(-r));
        r = body(d, tx, arg, e);
        int end = store_tx_end(d->store, tx, r != 0);
        if (r == 0 && end == 0)
            return 0;
        d->state = before;
        if (r == -EAGAIN)
            continue; /* the store has restarted: the transaction is over */
        if (r != 0)
            return r;
        if (end != -EAGAIN)
            return err_set(e, end, "the store did not take a transaction on %s: %s", d->dir, strerror(-end));
    }
    return err_set(e, -EAGAIN, "%d store transactions on %s collided in a row: somebody rewrites it all the time",
                   XB_TX_TRIES, d->dir);
}
