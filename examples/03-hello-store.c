/* SPDX-License-Identifier: MIT */
/* 03-hello-store: a guest reads its name in xenstore, writes a key and watches it. Nothing of domzero's is included:
 * this is Xen's own libxenstore, which finds the store by XENSTORED_PATH, which `domzero exec` sets.
 *
 *   build/domzero exec hello -- build/examples/03-hello-store
 *   build/domzero exec hello -- build/examples/03-hello-store --wait     and from another terminal, as domain 0:
 *   XENSTORED_PATH=$DOMZERO_RUN_DIR/xenstored/socket xenstore-write /local/domain/1/data/greeting 'good evening'
 *
 * The domain is that of examples/hello.cfg; its number is what `domzero create` said.
 *
 * What to look at: a path without a leading / is below the guest's own /local/domain/<domid>; a watch fires once when
 * it is set, then for each change; and the store refuses what is not the guest's.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

static void show(struct xs_handle *store, const char *path)
{
    unsigned length;
    char *value = xs_read(store, XBT_NULL, path, &length);
    printf("%s = %s\n", path, value ? value : strerror(errno));
    free(value);
}

static void next_event(struct xs_handle *store)
{
    unsigned count;
    char **event = xs_read_watch(store, &count);
    if (!event)
        err(1, "the store is gone");
    printf("watch \"%s\" fired: ", event[XS_WATCH_TOKEN]);
    show(store, event[XS_WATCH_PATH]);
    free(event);
}

int main(int argc, char **argv)
{
    struct xs_handle *store = xs_open(0);
    if (!store)
        err(1, "no xenstore; start me by `domzero exec DOMAIN -- 03-hello-store`");
    setvbuf(stdout, NULL, _IOLBF, 0); /* into a pipe, too: --wait has no end */
    show(store, "name");
    show(store, "domid");
    if (!xs_watch(store, "data/greeting", "greeting"))
        err(1, "watch data/greeting");
    next_event(store); /* a new watch fires at once */
    if (!xs_write(store, XBT_NULL, "data/greeting", "hello", strlen("hello")))
        err(1, "write data/greeting");
    next_event(store);
    if (!xs_write(store, XBT_NULL, "/local/domain/0/data", "mine", strlen("mine")))
        printf("writing to domain 0's part: %s\n", strerror(errno));
    while (argc > 1 && !strcmp(argv[1], "--wait")) {
        struct pollfd p = {xs_fileno(store), POLLIN, 0}; /* for programs with a loop of their own */
        char *alive = NULL;
        if (poll(&p, 1, 1000) > 0)
            next_event(store);
        else if (!(alive = xs_get_domain_path(store, 0))) /* the descriptor stays silent when the store goes: ask */
            errx(1, "the store is gone");
        free(alive);
    }
    xs_close(store);
    return 0;
}
