/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/unixsock.h"
#include "tests/random.h"
#include "tests/storekit.h"

static struct kit_reply reply_of(const struct store_message *m)
{
    struct kit_reply r = {.type = m->header.type, .length = m->header.len};
    assert_true(r.length <= XENSTORE_PAYLOAD_MAX);
    memcpy(r.bytes, m->payload, r.length);
    return r;
}

struct kit_reply kit_ask(struct store_session *s, uint32_t type, uint32_t tx, const void *payload, size_t length)
{
    struct store_message in = {.header = {.type = type, .req_id = 77, .tx_id = tx, .len = (uint32_t)length}}, out;
    assert_true(length <= sizeof(in.payload));
    if (length)
        memcpy(in.payload, payload, length);
    store_ops_handle(s, &in, &out);
    assert_int_equal(out.header.req_id, 77);
    assert_int_equal(out.header.tx_id, tx);
    assert_true(out.header.type == type || out.header.type == XS_ERROR);
    return reply_of(&out);
}

struct kit_reply kit_ask1(struct store_session *s, uint32_t type, uint32_t tx, const char *text)
{
    return kit_ask(s, type, tx, text, strlen(text) + 1);
}

struct kit_reply kit_ask2(struct store_session *s, uint32_t type, uint32_t tx, const char *first, const char *second)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    int n = snprintf(payload, sizeof(payload), "%s%c%s", first, '\0', second);
    assert_in_range(n, 1, sizeof(payload) - 1);
    return kit_ask(s, type, tx, payload, (size_t)n + 1);
}

struct kit_reply kit_write(struct store_session *s, uint32_t tx, const char *path, const char *value)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    int n = snprintf(payload, sizeof(payload), "%s%c%s", path, '\0', value);
    assert_in_range(n, 1, sizeof(payload) - 1);
    return kit_ask(s, XS_WRITE, tx, payload, (size_t)n);
}

uint32_t kit_tx(struct store_session *s)
{
    struct kit_reply r = kit_ask1(s, XS_TRANSACTION_START, 0, "");
    assert_int_equal(r.type, XS_TRANSACTION_START);
    return (uint32_t)strtoul(r.bytes, NULL, 10);
}

static const char *kit_commas(struct kit_reply *r)
{
    for (size_t i = 0; i < r->length; i++)
        if (r->bytes[i] == '\0')
            r->bytes[i] = ',';
    return r->bytes;
}

void kit_expect_ok(struct kit_reply r)
{
    assert_string_equal(r.bytes, "OK");
    assert_int_not_equal(r.type, XS_ERROR);
}

void kit_expect_text(struct kit_reply r, const char *bytes)
{
    assert_int_not_equal(r.type, XS_ERROR);
    assert_string_equal(r.bytes, bytes);
    assert_int_equal(r.length, strlen(bytes));
}

void kit_expect_error(struct kit_reply r, const char *name)
{
    assert_string_equal(r.bytes, name);
    assert_int_equal(r.type, XS_ERROR);
    assert_int_equal(r.length, strlen(name) + 1);
}

void kit_expect_event(struct store_session *s, const char *path, const char *token)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    size_t length = store_watch_next(&s->engine->watches, s, payload);
    if (!path) {
        assert_int_equal(length, 0);
        return;
    }
    assert_int_not_equal(length, 0);
    assert_string_equal(payload, path);
    assert_string_equal(payload + strlen(path) + 1, token);
    assert_int_equal(length, strlen(path) + strlen(token) + 2);
}

void kit_drain(struct store_session *s)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    while (store_watch_next(&s->engine->watches, s, payload) > 0)
        continue;
}

void kit_introduce(struct kit_world *w, const char *domid)
{
    char payload[32];
    int n = snprintf(payload, sizeof(payload), "%s%c1%c2", domid, '\0', '\0');
    kit_expect_ok(kit_ask(w->dom0, XS_INTRODUCE, 0, payload, (size_t)n + 1));
}

int kit_world_new(void **state, const struct store_quota *quota)
{
    struct store_options o = {.quota = quota ? *quota : store_quota_default};
    return kit_world_new_with(state, &o);
}

int kit_world_new_with(void **state, const struct store_options *o)
{
    struct kit_world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    assert_int_equal(store_engine_init(&w->g, o, 42), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(store_session_init(&w->s[i], &w->g, i), 0);
    w->dom0 = &w->s[0];
    w->one = &w->s[1];
    w->two = &w->s[2];
    kit_introduce(w, "1");
    kit_introduce(w, "2");
    kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/1", ""));
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/local/domain/1", "n1"));
    kit_expect_ok(kit_write(w->dom0, 0, "/local/domain/2", ""));
    kit_expect_ok(kit_ask2(w->dom0, XS_SET_PERMS, 0, "/local/domain/2", "n2"));
    *state = w;
    return 0;
}

int kit_world_free(void **state)
{
    struct kit_world *w = *state;
    for (unsigned i = 0; i < 3; i++)
        store_session_deinit(&w->s[i]);
    store_engine_deinit(&w->g);
    free(w);
    return 0;
}

void kit_set_perms(struct store_session *s, const char *path, const char *commas)
{
    char payload[256];
    int n = snprintf(payload, sizeof(payload), "%s,%s", path, commas);
    for (int i = 0; i < n; i++)
        if (payload[i] == ',')
            payload[i] = '\0';
    kit_expect_ok(kit_ask(s, XS_SET_PERMS, 0, payload, (size_t)n + 1));
}

void kit_expect_list(struct kit_reply r, const char *commas)
{
    assert_int_not_equal(r.type, XS_ERROR);
    assert_string_equal(kit_commas(&r), commas);
}

void kit_expect_string(struct kit_reply r, const char *text)
{
    assert_int_not_equal(r.type, XS_ERROR);
    assert_string_equal(r.bytes, text);
    assert_int_equal(r.length, strlen(text) + 1);
}

uint32_t kit_random(uint64_t *state, uint32_t below)
{
    return (uint32_t)(((random_step(state) >> 32) * below) >> 32);
}

static void *server_thread(void *argument)
{
    struct kit_server *k = argument;
    struct pollfd polled[2] = {{.fd = store_server_fd(k->server), .events = POLLIN},
                               {.fd = k->stop_fd, .events = POLLIN}};
    while (poll(polled, 2, -1) >= 0 && !polled[1].revents) {
        pthread_mutex_lock(&k->lock);
        int served = store_server_step(k->server, 16);
        pthread_mutex_unlock(&k->lock);
        if (served < 0)
            return (void *)1;
    }
    return NULL;
}

void kit_server_start(struct kit_server *k, const struct store_options *options)
{
    struct err e = {0};
    *k = (struct kit_server){.dir = "/tmp/domzero-store-XXXXXX", .stop_fd = eventfd(0, EFD_CLOEXEC)};
    assert_non_null(mkdtemp(k->dir));
    snprintf(k->socket, sizeof(k->socket), "%s/xenstored/socket", k->dir);
    assert_int_equal(store_server_new(k->dir, options, &k->server, &e), 0);
    assert_int_equal(pthread_mutex_init(&k->lock, NULL), 0);
    assert_int_equal(pthread_create(&k->thread, NULL, server_thread, k), 0);
}

void kit_server_stop(struct kit_server *k)
{
    void *failed;
    uint64_t one = 1;
    assert_int_equal(write(k->stop_fd, &one, sizeof(one)), sizeof(one));
    assert_int_equal(pthread_join(k->thread, &failed), 0);
    assert_null(failed);
    store_server_free(k->server);
    assert_int_equal(access(k->socket, F_OK), -1);
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", k->dir);
    assert_int_equal(system(command), 0);
    close(k->stop_fd);
    pthread_mutex_destroy(&k->lock);
}

int kit_server_new(void **state)
{
    struct kit_server *k = malloc(sizeof(*k));
    assert_non_null(k);
    kit_server_start(k, NULL);
    setenv("XENSTORED_PATH", k->socket, 1);
    *state = k;
    return 0;
}

int kit_server_free(void **state)
{
    kit_server_stop(*state);
    free(*state);
    return 0;
}

int kit_connect(const struct kit_server *k, unsigned domid)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", k->dir, domid);
    return unixsock_connect(domid ? path : k->socket, SOCK_STREAM, NULL);
}

void kit_send(int fd, const void *bytes, size_t length)
{
    assert_int_equal(send(fd, bytes, length, MSG_NOSIGNAL), length);
}

void kit_send_request(int fd, uint32_t type, uint32_t tx, const void *payload, size_t length)
{
    struct xsd_sockmsg header = {.type = type, .req_id = 5, .tx_id = tx, .len = (uint32_t)length};
    kit_send(fd, &header, sizeof(header));
    if (length)
        kit_send(fd, payload, length);
}

static bool receive_all(int fd, void *bytes, size_t length)
{
    return length == 0 || recv(fd, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

bool kit_receive(int fd, struct kit_reply *out)
{
    struct store_message m;
    if (!receive_all(fd, &m.header, sizeof(m.header)))
        return false;
    assert_true(m.header.len <= XENSTORE_PAYLOAD_MAX);
    if (!receive_all(fd, m.payload, m.header.len))
        return false;
    *out = reply_of(&m);
    return true;
}

struct kit_reply kit_exchange(int fd, uint32_t type, uint32_t tx, const void *payload, size_t length)
{
    struct kit_reply r;
    kit_send_request(fd, type, tx, payload, length);
    do
        assert_true(kit_receive(fd, &r));
    while (r.type == XS_WATCH_EVENT);
    return r;
}

struct store_server_stats kit_stats(struct kit_server *k)
{
    struct store_server_stats stats;
    pthread_mutex_lock(&k->lock);
    store_server_stats(k->server, &stats);
    pthread_mutex_unlock(&k->lock);
    return stats;
}

struct store_client *kit_client(const struct kit_server *k, unsigned domid)
{
    struct store_client *c;
    struct err e = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/dom/%u/xenstored.sock", k->dir, domid);
    assert_int_equal(store_client_open(domid ? path : k->socket, &c, &e), 0);
    return c;
}

/* A guest with a home. */
void kit_guest_make(struct store_client *dom0, unsigned domid)
{
    assert_int_equal(store_introduce(dom0, domid, 0, 0), 0);
    assert_int_equal(store_mkdir(dom0, STORE_NO_TX, "/local/domain/%u", domid), 0);
    assert_int_equal(store_set_owner_reader(dom0, STORE_NO_TX, domid, domid, "/local/domain/%u", domid), 0);
}

void kit_expect_value(struct store_client *c, const char *path, const char *value)
{
    char *got;
    size_t length;
    assert_int_equal(store_read(c, STORE_NO_TX, &got, &length, "%s", path), 0);
    assert_string_equal(got, value);
    assert_int_equal(length, strlen(value));
    free(got);
}

struct kit_reply kit_live_ask(int fd, const char *first, const char *second)
{
    char payload[512];
    int n = snprintf(payload, sizeof(payload), "live-update%c%s%c%s", '\0', first, '\0', second ? second : "");
    assert_in_range(n, 1, sizeof(payload) - 1);
    return kit_exchange(fd, XS_CONTROL, 0, payload, (size_t)n + (second ? 1 : 0));
}

struct kit_reply kit_live_start(int fd)
{
    struct kit_reply r;
    while (strcmp((r = kit_live_ask(fd, "-s", NULL)).bytes, "BUSY") == 0)
        poll(NULL, 0, 1);
    return r;
}

void kit_live_update(const char *socket, const char *program)
{
    int fd = unixsock_connect(socket, SOCK_STREAM, NULL);
    assert_true(fd >= 0);
    kit_expect_string(kit_live_ask(fd, "-f", program), "OK");
    kit_expect_string(kit_live_start(fd), "OK");
    kit_expect_string(kit_exchange(fd, XS_GET_DOMAIN_PATH, 0, "0", 2), "/local/domain/0"); /* by the new one */
    close(fd);
}
