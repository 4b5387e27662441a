/* SPDX-License-Identifier: MIT */
/* tools/block_set.c: `domzero block-set` and `domzero block-resize`: changes of a disk that runs. The backend does them
 * (xenbus/keys_blk_set.h); here they are written down, waited for, and a refusal is said. */
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "tools/json.h"
#include "tools/vbd.h"
#include "tools/verb.h"

static int set_readonly(struct keys_blk_set *set, const char *value, struct err *e)
{
    uint64_t on;
    if (parse_u64(value, 0, 1, &on))
        return err_set(e, -EINVAL, "readonly=%.40s: 0 or 1 was expected", value);
    set->has_readonly = true;
    set->readonly = on;
    return 0;
}

static int set_dma(struct keys_blk_set *set, const char *value, struct err *e)
{
    if (!vmcfg_word(value, sizeof(set->dma)))
        return err_set(e, -EINVAL, "dma=%.40s: the name of a DMA strategy such as pin or copy was expected", value);
    strcpy(set->dma, value);
    return 0;
}

static int set_poll(struct keys_blk_set *set, const char *value, struct err *e)
{
    if (!vmcfg_word(value, sizeof(set->poll)))
        return err_set(e, -EINVAL, "poll=%.40s: interrupt, adaptive, poll or default was expected", value);
    set->has_poll = true;
    strcpy(set->poll, value);
    return 0;
}

static const struct setting {
    const char *name;
    int (*set)(struct keys_blk_set *set, const char *value, struct err *e);
} settings[] = {
    {"readonly", set_readonly},
    {"dma", set_dma},
    {"poll", set_poll},
};

/* "iops=500" and its like into the request. */
static int parse_setting(struct keys_blk_set *set, const char *text, struct err *e)
{
    int i = vmcfg_qos_find(text);
    if (i >= 0) {
        set->has_qos[i] = true;
        return vmcfg_qos_option(&set->qos, text, e);
    }
    for (size_t s = 0; s < ARRAY_SIZE(settings); s++) {
        size_t n = strlen(settings[s].name);
        if (!strncmp(text, settings[s].name, n) && text[n] == '=')
            return settings[s].set(set, text + n + 1, e);
    }
    return err_set(e, -EINVAL,
                   "\"%.40s\" cannot be set; there are iops=, iops-burst=, bytes=, bytes-burst=, readonly=, dma= and "
                   "poll=",
                   text);
}

/* The backend judges again; here the sentence comes before anything was written. */
static int rates_check(const struct xb_device *d, const struct keys_blk_set *set, struct err *e)
{
    struct keys_blk_qos now;
    if (keys_blk_qos_read(d->store, d->dir, &now, NULL))
        return 0;
    struct keys_blk_qos wanted = keys_blk_set_qos(set, &now);
    return keys_blk_qos_check(&wanted, e);
}

/* What the backend has to say of how it serves the disk now. */
static void warning_show(const struct xb_device *d, const char *vdev)
{
    _cleanup_free_ char *text = NULL;
    if (store_read(d->store, STORE_NO_TX, &text, NULL, "%s/" KEYS_BLK_WARNING, d->dir) == 0)
        fprintf(stderr, "warning: disk %s: %s\n", vdev, json_plain(text));
}

static int change(struct tool *t, const char *name, const char *vdev, struct keys_blk_set *set, struct err *e)
{
    struct platform_domain domain;
    struct xb_device d;
    int r = vbd_find(t, name, vdev, &domain, &d, e);
    if (r)
        return r;
    r = rates_check(&d, set, e);
    r = r ? r : vbd_change(&d, set, VBD_CHANGE_MS, e);
    if (!r && set->dma[0])
        warning_show(&d, vdev);
    return r ? err_prefix(e, r, "disk %s", vdev) : 0;
}

static int set_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct keys_blk_set set = {0};
    if (argc < 3)
        return VERB_USAGE;
    for (int i = 2; i < argc; i++) {
        int r = parse_setting(&set, argv[i], e);
        if (r)
            return r;
    }
    return change(t, argv[0], argv[1], &set, e);
}

const struct verb verb_block_set = {
    .name = "block-set",
    .arguments = "DOMAIN VDEV [iops=N] [iops-burst=N] [bytes=BYTES] [bytes-burst=BYTES] [readonly=0|1] [dma=NAME] "
                 "[poll=MODE]",
    .summary = "change a disk that runs",
    .help =
        "iops, bytes: limits a second, 0 for none; bytes with K, M, G or T. The bursts are what may begin at once\n"
        "(0: a tenth of a second's worth). poll: interrupt, adaptive, poll, or default for the role's. The guest's\n"
        "requests wait meanwhile and none is lost. What is refused leaves the disk as it was.\n",
    .run = set_run,
};

static int resize_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct keys_blk_set set = {0};
    if (argc != 3)
        return VERB_USAGE;
    if (parse_size(argv[2], &set.size_bytes) || !set.size_bytes || set.size_bytes % SECTOR_BYTES ||
        set.size_bytes > INT64_MAX)
        return err_set(e, -EINVAL,
                       "\"%.40s\" is no size: a multiple of %u bytes with an optional K, M, G or T was expected",
                       argv[2], SECTOR_BYTES);
    return change(t, argv[0], argv[1], &set, e);
}

const struct verb verb_block_resize = {
    .name = "block-resize",
    .arguments = "DOMAIN VDEV SIZE",
    .summary = "make a disk that runs larger or smaller",
    .help =
        "SIZE in bytes, or with K, M, G or T. A file is made longer where the disk is all of it or its end; one that\n"
        "shrinks leaves its file as it is, and what lies behind its end is there again when it grows.\n",
    .run = resize_run,
};
