/* SPDX-License-Identifier: MIT */
/* tools/introduce.c: `domzero introduce`: tells the store of the ring that a domain offers. */
#include <limits.h>
#include <string.h>

#include "base/parse.h"
#include "tools/verb.h"

/* An option's number: 1, 0 where it is not there, -EINVAL. */
static int number_option(int *argc, char **argv, const char *name, uint64_t max, uint64_t *out)
{
    const char *text;
    int r = tool_option(argc, argv, name, &text);
    return r == 1 && parse_u64(text, 0, max, out) < 0 ? -EINVAL : r;
}

static int introduce(struct tool *t, const char *who, uint64_t gfn, uint32_t port, struct err *e)
{
    struct platform_domain d;
    int r = tool_open(t, e);
    r = r ? r : tool_domain_find(t, who, &d, e);
    if (r)
        return r;
    r = store_introduce(t->store, d.domid, (unsigned long)gfn, port);
    if (r == -ENOENT)
        return err_set(
            e, r,
            "domain %u offers no such ring: one of its processes grants domain 0 its page as reference 1 and "
            "allocates port %u for domain 0 first",
            d.domid, port);
    return r ? err_set(e, r, "the store does not take the ring of domain %u: %s", d.domid, strerror(-r)) : 0;
}

static int introduce_run(struct tool *t, int argc, char **argv, struct err *e)
{
    uint64_t port = 0, gfn = 0;
    int with_port = number_option(&argc, argv, "--port", UINT32_MAX, &port);
    int with_gfn = number_option(&argc, argv, "--gfn", ULONG_MAX, &gfn);
    if (argc != 1 || with_port != 1 || with_gfn < 0)
        return VERB_USAGE;
    return introduce(t, argv[0], gfn, (uint32_t)port, e);
}

const struct verb verb_introduce = {
    .name = "introduce",
    .arguments = "DOMAIN --port=PORT [--gfn=FRAME]",
    .summary = "connect the store to a domain's ring page",
    .help = "For guests that speak to the store as they do under Xen: through the page that they granted domain 0 as\n"
            "reference 1, and event channel PORT. A ring that the domain had is replaced, PORT 0 takes it away; its\n"
            "socket serves as before. The store finds the page by its reference: FRAME is what Xen's toolstack would "
            "say.\n",
    .run = introduce_run,
};
