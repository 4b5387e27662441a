/* SPDX-License-Identifier: MIT */
/* frontend/blkfront_close.c: the end of a disk that its user closes: 5, the backend's 5 or 6, 6, its 6.
 *
 * A backend that is there is waited for, to the deadline. One that is not (killed, and nobody started it again; a
 * driver domain that is no more) would be waited for in vain: its end of the event channel is closed then, by the
 * hypervisor role, and that is what tells.
 */
#include <string.h>

#include "base/clock.h"
#include "frontend/blkfront.h"

static bool channel_has_peer(struct dz_vbd *v, const struct dz_queue *q)
{
    return q->channel.wait_fd >= 0 && domain_port_status(v->dom, q->channel.port, NULL) == PLATFORM_PORT_INTERDOMAIN;
}

/* Nobody has been at the other end of the event channel for VBD_GONE_MS: a backend that was restarted is back by
 * then, and one that closes closes its end before it says so. */
static bool peerless_too_long(struct dz_vbd *v)
{
    uint64_t now = clock_now_ns();
    if (channel_has_peer(v, v->queue[0]))
        v->peerless_since_ns = 0;
    else if (!v->peerless_since_ns)
        v->peerless_since_ns = now;
    return v->peerless_since_ns && now - v->peerless_since_ns > VBD_GONE_MS * CLOCK_NS_PER_MS;
}

bool vbd_backend_gone(struct dz_vbd *v)
{
    return v->life == VBD_FAILED || v->world_gone || peerless_too_long(v);
}

/* Until the backend's state has `reached` what we wait for, or the deadline, or it is gone for good; false: it has not.
 */
static bool closing_wait(struct dz_vbd *v, bool (*reached)(const struct xb_device *d), uint64_t deadline)
{
    while (!v->world_gone) {
        if (xb_device_read_peer(&v->device) < 0)
            return false;
        if (reached(&v->device))
            return true;
        int timeout_ms = vbd_ms_until(deadline);
        if (timeout_ms == 0 || peerless_too_long(v))
            return false;
        queue_await_alone(v->queue[0], MIN((unsigned)timeout_ms, VBD_LOOK_MS));
        v->world_gone = domain_step(v->dom) < 0 || vbd_store_drain(v) < 0;
    }
    return false;
}

static bool may_show_closed(const struct xb_device *d)
{
    return xb_device_reaction(d) == XB_CLOSED;
}

static bool has_let_go(const struct xb_device *d)
{
    return d->peer_state == XenbusStateClosed || d->peer_state == XenbusStateUnknown;
}

void vbd_disconnect(struct dz_vbd *v, uint64_t deadline_ns)
{
    v->peerless_since_ns = 0;
    if (v->ours && !v->world_gone) {
        vbd_show(v, XenbusStateClosing);
        if (v->device.state == XenbusStateClosing) {
            closing_wait(v, may_show_closed, deadline_ns);
            vbd_show(v, XenbusStateClosed);
        }
        closing_wait(v, has_let_go, deadline_ns);
    }
    if (v->watched && !v->world_gone)
        xb_device_unwatch(&v->device, VBD_WATCH_TOKEN);
    vbd_channels_close(v);
    if (v->life != VBD_FAILED) {
        err_set(&v->why, -ECANCELED, "%s: the disk is being closed", v->name);
        vbd_end(v, -ECANCELED);
    }
}
