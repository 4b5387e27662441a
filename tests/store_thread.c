/* SPDX-License-Identifier: MIT */
#include "tests/store_thread.h"

#include <assert.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <xenstore.h>

static void *serve(void *arg)
{
    struct store_thread *t = arg;
    struct pollfd fds[2] = {{.fd = store_server_fd(t->server), .events = POLLIN}, {.fd = t->stop_fd, .events = POLLIN}};
    for (;;) {
        int n = poll(fds, 2, -1);
        assert(n > 0 || errno == EINTR);
        if (n > 0 && fds[1].revents)
            return NULL;
        assert(store_server_step(t->server, 64) >= 0);
    }
}

void store_thread_start(struct store_thread *t)
{
    struct err e = {0};
    strcpy(t->run_dir, "/tmp/domzero-store-XXXXXX");
    assert(mkdtemp(t->run_dir));
    snprintf(t->socket, sizeof(t->socket), "%s/xenstored/socket", t->run_dir);
    if (store_server_new(t->run_dir, NULL, &t->server, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    t->stop_fd = eventfd(0, EFD_CLOEXEC);
    assert(t->stop_fd >= 0);
    int r = pthread_create(&t->thread, NULL, serve, t);
    assert(r == 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void store_thread_stop(struct store_thread *t)
{
    assert(eventfd_write(t->stop_fd, 1) == 0);
    pthread_join(t->thread, NULL);
    store_server_free(t->server);
    close(t->stop_fd);
    nftw(t->run_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct store_client *client_at(const char *path)
{
    struct store_client *c;
    struct err e = {0};
    if (store_client_open(path, &c, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    return c;
}

struct store_client *store_thread_client(struct store_thread *t)
{
    return client_at(t->socket);
}

struct store_client *store_thread_client_of(struct store_thread *t, unsigned domid)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", t->run_dir, domid);
    return client_at(path);
}

void store_thread_write_bytes(struct store_thread *t, const char *path, const void *bytes, size_t length)
{
    setenv("XENSTORED_PATH", t->socket, 1);
    struct xs_handle *xs = xs_open(0);
    unsetenv("XENSTORED_PATH");
    assert(xs);
    bool ok = xs_write(xs, XBT_NULL, path, bytes, (unsigned)length);
    assert(ok);
    xs_close(xs);
}
