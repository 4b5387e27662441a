/* SPDX-License-Identifier: MIT */
/* tools/block_resume.c: `domzero block-resume`: a disk that holds requests since its storage failed does them again. */
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "tools/vbd.h"
#include "tools/verb.h"

#define RESUME_MS 30000 /* storage that needs longer is no better than before */

static int paused_read(const struct xb_device *d, char **text)
{
    return store_read(d->store, STORE_NO_TX, text, NULL, "%s/" KEYS_BLK_PAUSED, d->dir);
}

/* The key goes when all that was held has ended well; where it did not it says why again. */
static int resume_await(const struct xb_device *d, struct err *e)
{
    uint64_t end_ns = clock_now_ns() + RESUME_MS * CLOCK_NS_PER_MS;
    while (clock_now_ns() < end_ns) {
        _cleanup_free_ char *text = NULL;
        int r = paused_read(d, &text);
        if (r == -ENOENT)
            return 0;
        if (r)
            return err_set(e, r, "cannot read from the store: %s", strerror(-r));
        if (strcmp(text, KEYS_BLK_RESUME))
            return err_set(e, -EIO, "tried again, and still %s", text);
        poll(NULL, 0, 5);
    }
    return err_set(e, -ETIMEDOUT, "the storage has not ended what it was given in %d s", RESUME_MS / 1000);
}

/* In a transaction: a key that the backend takes away meanwhile is not to come back. */
static int ask_body(struct xb_device *d, store_tx tx, void *arg, struct err *e)
{
    _cleanup_free_ char *text = NULL;
    (void)arg;
    int r = store_read(d->store, tx, &text, NULL, "%s/" KEYS_BLK_PAUSED, d->dir);
    if (r == -ENOENT)
        return err_set(e, r, "nothing is held");
    if (!r)
        r = store_write(d->store, tx, KEYS_BLK_RESUME, "%s/" KEYS_BLK_PAUSED, d->dir);
    return r ? err_set(e, r, "the store: %s", strerror(-r)) : 0;
}

static int resume(struct xb_device *d, struct err *e)
{
    int r = xb_transaction(d, ask_body, NULL, e);
    return r ? r : resume_await(d, e);
}

static int resume_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain domain;
    struct xb_device d;
    if (argc != 2)
        return VERB_USAGE;
    int r = vbd_find(t, argv[0], argv[1], &domain, &d, e);
    if (r)
        return r;
    r = resume(&d, e);
    return r ? err_prefix(e, r, "disk %s", argv[1]) : 0;
}

const struct verb verb_block_resume = {
    .name = "block-resume",
    .arguments = "DOMAIN VDEV",
    .summary = "try again what a disk holds since its storage failed",
    .help = "For disks with on-error=stop that block-list shows as paused. Make the storage work again first.\n",
    .run = resume_run,
};
