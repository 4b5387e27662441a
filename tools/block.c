/* SPDX-License-Identifier: MIT */
/* tools/block.c: `domzero block-attach` and `domzero block-detach`. */
#include <stdio.h>
#include <string.h>

#include "tools/vbd.h"
#include "tools/verb.h"

#define SPECS_MAX 16 /* xl's grammar has fewer parameters */

/* The components of the specification are parsed as one, then our own options are laid over it. */
static int parse_disk(int argc, char **argv, struct vmcfg_disk *disk, struct err *e)
{
    const char *specs[SPECS_MAX];
    unsigned count = 0;
    _cleanup_free_ char *cwd = getcwd(NULL, 0);
    if (!cwd)
        return err_set(e, -errno, "the current directory has no name: %s", strerror(errno));
    for (int i = 0; i < argc; i++) {
        if (vmcfg_is_disk_option(argv[i]))
            continue;
        if (count == SPECS_MAX)
            return err_set(e, -E2BIG, "more than %d parts of a disk specification", SPECS_MAX);
        specs[count++] = argv[i];
    }
    int r = vmcfg_disk_parse(specs, count, cwd, disk, e);
    for (int i = 0; r == 0 && i < argc; i++)
        if (vmcfg_is_disk_option(argv[i]))
            r = vmcfg_disk_option(disk, argv[i], e);
    return r ? r : keys_blk_qos_check(&disk->config.qos, e);
}

static int attach_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain domain;
    struct vmcfg_disk disk;
    struct xb_device d;
    if (argc < 2)
        return VERB_USAGE;
    int r = parse_disk(argc - 1, argv + 1, &disk, e);
    r = r ? r : tool_open(t, e);
    r = r ? r : tool_domain_find(t, argv[0], &domain, e);
    if (r)
        return r;
    vbd_init(&d, t->store, domain.domid, disk.devid);
    vbd_hold_signals();
    r = vbd_make(&d, &disk, e);
    if (r < 0)
        return r;
    r = vbd_wait_ready(&d, VBD_READY_MS, e);
    if (r < 0) {
        err_prefix(e, r, "disk %s", disk.vdev);
        vbd_ask_close(&d, false, NULL);
        vbd_wait_closed(&d, VBD_CLOSE_MS, NULL);
        vbd_remove(&d, NULL);
    }
    return r;
}

const struct verb verb_block_attach = {
    .name = "block-attach",
    .arguments = "DOMAIN DISK [OPTION=VALUE ...]",
    .summary = "give a domain another disk",
    .help =
        "DISK as in a cfg file: TARGET,FORMAT,VDEV,ACCESS or format=...,vdev=...,access=...,target=... in one or more\n"
        "arguments. A target that does not begin with / is looked for in the current directory.\n"
        "Options, each explained under DISK OPTIONS in domzero(1):\n"
        "  where it lies       offset, size, image, direct-io, host-alignment\n"
        "  what a guest sees   sector-size, physical-sector-size, max-queues\n"
        "  when storage fails  on-error, report-after\n"
        "  how it is served    dma, iommu, dma-bits, persistent, poll\n"
        "  how fast at most    iops, iops-burst, bytes, bytes-burst\n",
    .run = attach_run,
};

/* Where the guest does not answer, --force takes its directory away, which the backend sees as its peer's end. */
static int detach(struct xb_device *d, bool guest_lives, bool force, struct err *e)
{
    int r = vbd_ask_close(d, guest_lives && !force, e);
    if (r < 0)
        return r;
    r = vbd_wait_closed(d, VBD_CLOSE_MS, e);
    if (r == -ETIMEDOUT && !force)
        return err_set(e, r,
                       "the guest was asked to close it and has not within %d s: close it there and detach again, "
                       "or use --force",
                       VBD_CLOSE_MS / 1000);
    if (r < 0 && r != -ETIMEDOUT)
        return r;
    return vbd_remove(d, e);
}

static int detach_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain domain;
    struct xb_device d;
    bool force = tool_flag(&argc, argv, "--force");
    if (argc != 2)
        return VERB_USAGE;
    int r = vbd_find(t, argv[0], argv[1], &domain, &d, e);
    if (r)
        return r;
    r = detach(&d, domain.instances > 0, force, e);
    return r ? err_prefix(e, r, "disk %s", argv[1]) : 0;
}

const struct verb verb_block_detach = {
    .name = "block-detach",
    .arguments = "DOMAIN VDEV [--force]",
    .summary = "take a disk away from a domain",
    .help = "The guest is asked to close it and has 10 seconds. With --force it is not asked.\n",
    .run = detach_run,
};
