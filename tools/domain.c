/* SPDX-License-Identifier: MIT */
#include "tools/domain.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tools/vbd.h"

/* What INTRODUCE carries of a store ring, where there is none yet: a process comes by socket, or makes its ring known
 * later (`domzero introduce`). */
#define STORE_GFN_NONE  0ul
#define STORE_PORT_NONE 0u

/* The guest reads its own directory, and writes where Xen's toolstack lets it: `data` and `error`. */
static int make_nodes_in(struct store_client *c, store_tx tx, uint16_t domid, const char *name)
{
    static const char *const writable[] = {"data", "error"};
    char home[32];
    snprintf(home, sizeof(home), "/local/domain/%u", domid);
    int r = store_rm(c, tx, "%s", home);
    r = r ? r : store_mkdir(c, tx, "%s", home);
    r = r ? r : store_set_owner_reader(c, tx, 0, domid, "%s", home);
    r = r ? r : store_printf(c, tx, home, "name", "%s", name);
    r = r ? r : store_printf(c, tx, home, "domid", "%u", domid);
    r = r ? r : store_mkdir(c, tx, "%s/device", home);
    r = r ? r : store_mkdir(c, tx, "%s/device/vbd", home);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(writable); i++) {
        r = store_mkdir(c, tx, "%s/%s", home, writable[i]);
        r = r ? r : store_set_owner_reader(c, tx, domid, 0, "%s/%s", home, writable[i]);
    }
    return r;
}

static int make_nodes(struct store_client *c, uint16_t domid, const char *name, struct err *e)
{
    int r = -EAGAIN;
    for (unsigned i = 0; r == -EAGAIN && i < XB_TX_TRIES; i++) {
        store_tx tx;
        r = store_tx_start(c, &tx);
        if (r < 0)
            break;
        int body = make_nodes_in(c, tx, domid, name);
        r = store_tx_end(c, tx, body != 0);
        r = body ? body : r;
    }
    return r ? err_set(e, r, "cannot make /local/domain/%u in the store: %s", domid, strerror(-r)) : 0;
}

int domain_make(struct tool *t, const char *name, uint16_t *domid, struct err *e)
{
    char dir[TOOL_PATH_MAX];
    int r = platform_domain_create(t->platform, name, domid, dir, sizeof(dir), e);
    if (r < 0)
        return r;
    r = store_introduce(t->store, *domid, STORE_GFN_NONE, STORE_PORT_NONE);
    if (r < 0)
        err_set(e, r, "the store does not take domain %u: %s", *domid, strerror(-r));
    else
        r = make_nodes(t->store, *domid, name, e);
    if (r < 0)
        domain_unmake(t, *domid, false, NULL);
    return r;
}

static unsigned until(uint64_t deadline_ns)
{
    uint64_t now = clock_now_ns();
    return now < deadline_ns ? (unsigned)((deadline_ns - now) / CLOCK_NS_PER_MS) : 0;
}

/* All are asked, then all are waited for, then those that did not close lose their frontend's directory. */
static int close_disks(struct tool *t, uint16_t domid, bool guest_lives, struct err *e)
{
    _cleanup_free_ uint32_t *devids = NULL;
    struct xb_device d;
    int count = vbd_list(t->store, domid, &devids, e), first = count < 0 ? count : 0;
    for (int round = 0; round < 2; round++) {
        bool patient = round == 0 && guest_lives;
        bool late = false;
        for (int i = 0; i < count; i++) {
            vbd_init(&d, t->store, domid, devids[i]);
            vbd_ask_close(&d, patient, NULL);
        }
        uint64_t deadline = clock_now_ns() + (patient ? DOMAIN_CLOSE_MS : DOMAIN_FORCE_MS) * CLOCK_NS_PER_MS;
        for (int i = 0; i < count; i++) {
            vbd_init(&d, t->store, domid, devids[i]);
            late |= vbd_wait_closed(&d, until(deadline), NULL) < 0;
        }
        if (!late || !patient)
            break;
    }
    for (int i = 0; i < count; i++) {
        vbd_init(&d, t->store, domid, devids[i]);
        int r = vbd_remove(&d, first ? NULL : e);
        first = first ? first : r;
    }
    return first;
}

int domain_unmake(struct tool *t, uint16_t domid, bool guest_lives, struct err *e)
{
    int first = close_disks(t, domid, guest_lives, e);
    int r = store_release(t->store, domid);
    if (r < 0 && r != -ENOENT && r != -EINVAL && !first) /* both: it was not introduced */
        first = err_set(e, r, "the store does not release domain %u: %s", domid, strerror(-r));
    r = platform_domain_destroy(t->platform, domid, first ? NULL : e);
    first = first ? first : r;
    r = store_rm(t->store, STORE_NO_TX, "/local/domain/%u", domid);
    if (r < 0 && !first)
        first = err_set(e, r, "cannot remove /local/domain/%u: %s", domid, strerror(-r));
    return first;
}
