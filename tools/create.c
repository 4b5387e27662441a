/* SPDX-License-Identifier: MIT */
/* tools/create.c: `domzero create` and `domzero destroy`. */
#include <stdio.h>
#include <string.h>

#include "tools/domain.h"
#include "tools/vbd.h"
#include "tools/verb.h"

/* All disks at once, then all waits: the images are opened side by side. */
static int attach_disks(struct tool *t, uint16_t domid, const struct vmcfg *cfg, struct err *e)
{
    struct xb_device d;
    for (unsigned i = 0; i < cfg->disk_count; i++) {
        vbd_init(&d, t->store, domid, cfg->disk[i].devid);
        int r = vbd_make(&d, &cfg->disk[i], e);
        if (r < 0)
            return err_prefix(e, r, "disk %s", cfg->disk[i].vdev);
    }
    for (unsigned i = 0; i < cfg->disk_count; i++) {
        vbd_init(&d, t->store, domid, cfg->disk[i].devid);
        int r = vbd_wait_ready(&d, VBD_READY_MS, e);
        if (r < 0)
            return err_prefix(e, r, "disk %s", cfg->disk[i].vdev);
    }
    return 0;
}

static int create_domain(struct tool *t, const struct vmcfg *cfg, struct err *e)
{
    uint16_t domid;
    int r = tool_open(t, e);
    r = r ? r : tool_name_free(t, cfg->name, e);
    vbd_hold_signals();
    r = r ? r : domain_make(t, cfg->name, &domid, e);
    if (r)
        return r;
    r = attach_disks(t, domid, cfg, e);
    if (r < 0) {
        domain_unmake(t, domid, false, NULL);
        return r;
    }
    printf("created domain %s (domid %u)\n", cfg->name, domid);
    return 0;
}

static int create_run(struct tool *t, int argc, char **argv, struct err *e)
{
    if (argc != 1)
        return VERB_USAGE;
    struct vmcfg *cfg = malloc(sizeof(*cfg));
    if (!cfg)
        return err_set(e, -ENOMEM, "no memory");
    int r = vmcfg_read_file(argv[0], cfg, e);
    if (r == 0 && cfg->ignored[0])
        printf("%s: of no meaning to a domain of processes, ignored: %s\n", argv[0], cfg->ignored);
    if (r == 0)
        r = create_domain(t, cfg, e);
    free(cfg);
    return r;
}

const struct verb verb_create = {
    .name = "create",
    .arguments = "FILE.cfg",
    .summary = "make a domain and attach its disks",
    .help =
        "FILE.cfg is an xl.cfg file. Used are name, disk and disk_options; other keys of xl are named and ignored.\n"
        "A target that does not begin with / is looked for in FILE.cfg's directory. The domain stays until it is\n"
        "destroyed; its processes are started by `domzero exec`. Where a disk cannot be served nothing is left "
        "behind.\n",
    .run = create_run,
};

static int destroy_run(struct tool *t, int argc, char **argv, struct err *e)
{
    struct platform_domain d;
    if (argc != 1)
        return VERB_USAGE;
    int r = tool_open(t, e);
    r = r ? r : tool_domain_find(t, argv[0], &d, e);
    return r ? r : domain_unmake(t, d.domid, d.instances > 0, e);
}

const struct verb verb_destroy = {
    .name = "destroy",
    .arguments = "DOMAIN",
    .summary = "close a domain's disks and take it away",
    .help = "Its processes see their disks close; they have 5 seconds to finish and are then cut off. They are not "
            "killed.\n",
    .run = destroy_run,
};
