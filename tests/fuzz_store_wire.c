/* SPDX-License-Identifier: MIT */
/* The script: a byte whose low three bits say who does something (0: domain 0; 1, 2, 3: domains 1, 2 and 1 once more;
 * above: domain 3 with its ring page) and whose others say what (enum deed), then what that needs. Where the input
 * ends, so does the script. Whatever was sent, answers are whole messages of known types, the engine agrees with
 * itself, and the store wrote nothing into a page but what is its to write. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "base/unixsock.h"
#include "store/control.h"
#include "store/ring.h"
#include "store/rota.h"
#include "tests/fuzz_store.h"

#define PIPES      4
#define RING_DOMID 3
#define IN_BYTES   16384

enum deed { MESSAGE = 0, MESSAGE_LAST = 15, RAW, STOP_READING, HANG_UP, WAIT, POKE, WORD, EVENT, ASK, READ };

struct input {
    const uint8_t *at, *end;
};

/* The peer's end of a connection in memory. */
struct pipe {
    struct store_transport transport;
    struct world *world;
    unsigned domid;
    bool open, deaf;
    uint32_t last_transaction, last_request;
    size_t in_at, in_end;
    char in[IN_BYTES];
    size_t answer_have;
    struct store_message answer;
};

struct world {
    struct loop loop;
    struct store_engine engine;
    struct store_rota rota;
    struct pipe pipe[PIPES];
    struct store_ring ring;
    struct xenstore_domain_interface *page, shadow;
    int ring_fd;
    bool introduced[RING_DOMID + 1];
};

static uint8_t take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static uint32_t take32(struct input *in)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < 4; i++)
        n = n << 8 | take(in);
    return n;
}

/* ---- a transport ---- */

static ssize_t pipe_receive(struct store_transport *t, void *out, size_t room)
{
    struct pipe *p = container_of(t, struct pipe, transport);
    size_t n = MIN(p->in_end - p->in_at, room);
    if (n == 0)
        return -EAGAIN;
    memcpy(out, p->in + p->in_at, n);
    p->in_at += n;
    return (ssize_t)n;
}

static void answer_judge(struct pipe *p)
{
    const struct xsd_sockmsg *h = &p->answer.header;
    fuzz_expect(h->type < XS_TYPE_COUNT, "an answer of no known type");
    if (h->type == XS_ERROR)
        fuzz_expect(h->len > 1 && p->answer.payload[h->len - 1] == 0, "an error without its name");
    if (h->type == XS_TRANSACTION_START)
        p->last_transaction = (uint32_t)strtoul(p->answer.payload, NULL, 10);
    if (h->type == XS_WATCH_EVENT)
        fuzz_expect(h->req_id == 0 && h->tx_id == 0 && memchr(p->answer.payload, 0, h->len), "an odd event");
}

static void answer_take(struct pipe *p, const char *bytes, size_t length)
{
    while (length) {
        size_t head = sizeof(p->answer.header), whole = head;
        if (p->answer_have >= head) {
            fuzz_expect(p->answer.header.len <= XENSTORE_PAYLOAD_MAX, "an answer that is too long");
            whole += p->answer.header.len;
        }
        size_t n = MIN(whole - p->answer_have, length);
        memcpy((char *)&p->answer + p->answer_have, bytes, n);
        p->answer_have += n;
        bytes += n;
        length -= n;
        if (p->answer_have == whole && (whole > head || p->answer.header.len == 0)) {
            answer_judge(p);
            p->answer_have = 0;
        }
    }
}

static ssize_t pipe_send(struct store_transport *t, const struct iovec *iov, unsigned count)
{
    struct pipe *p = container_of(t, struct pipe, transport);
    ssize_t sent = 0;
    if (p->deaf)
        return -EAGAIN;
    for (unsigned i = 0; i < count; i++) {
        answer_take(p, iov[i].iov_base, iov[i].iov_len);
        sent += (ssize_t)iov[i].iov_len;
    }
    return sent;
}

static void pipe_close(struct store_transport *t, int error)
{
    struct pipe *p = container_of(t, struct pipe, transport);
    (void)error;
    p->open = false;
    close(t->fd);
}

static const struct store_transport_ops pipe_ops = {
    .name = "memory", .receive = pipe_receive, .send = pipe_send, .close = pipe_close};

static void pipe_open(struct pipe *p)
{
    struct world *w = p->world;
    if (p->domid != 0 && !w->introduced[p->domid])
        return;
    p->in_at = p->in_end = p->answer_have = 0;
    p->deaf = false;
    p->open = true;
    p->transport = (struct store_transport){.ops = &pipe_ops, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    fuzz_expect(store_rota_take(&w->rota, &p->transport, p->domid, NULL) == 0, "no memory");
}

static void pipe_wake(const struct pipe *p)
{
    if (p->open)
        eventfd_write(p->transport.fd, 1);
}

static void pipe_put(struct pipe *p, const void *bytes, size_t length)
{
    if (p->in_at == p->in_end)
        p->in_at = p->in_end = 0;
    if (!p->open || sizeof(p->in) - p->in_end < length)
        return;
    memcpy(p->in + p->in_end, bytes, length);
    p->in_end += length;
    pipe_wake(p);
}

/* ---- a ring ---- */

static void ring_notify(void *ctx)
{
    (void)ctx;
}

static void ring_consume(void *ctx)
{
    eventfd_t n;
    eventfd_read(((struct world *)ctx)->ring_fd, &n);
}

static void ring_event(struct world *w)
{
    if (!w->ring.connected && store_ring_asked(&w->ring) && w->introduced[RING_DOMID])
        fuzz_expect(store_rota_take(&w->rota, store_ring_connect(&w->ring), RING_DOMID, NULL) == 0, "no memory");
    eventfd_write(w->ring_fd, 1);
}

static void ring_put(struct world *w, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        w->page->req[MASK_XENSTORE_IDX(w->page->req_prod + i)] = ((const char *)bytes)[i];
    memcpy(w->shadow.req, w->page->req, sizeof(w->shadow.req));
    w->page->req_prod += (uint32_t)length;
    ring_event(w);
}

static void ring_word(struct world *w, struct input *in)
{
    uint32_t *const words[] = {&w->page->req_cons, &w->page->req_prod,        &w->page->rsp_cons,  &w->page->rsp_prod,
                               &w->page->error,    &w->page->server_features, &w->page->connection};
    uint32_t *word = words[take(in) % ARRAY_SIZE(words)];
    uint8_t how = take(in);
    *word = how < 128 ? *word + (uint32_t)(how - 64) : take32(in);
}

/* ---- the script ---- */

static void put(struct world *w, unsigned who, const void *bytes, size_t length)
{
    if (who < PIPES)
        pipe_put(&w->pipe[who], bytes, length);
    else
        ring_put(w, bytes, length);
}

/* A header that fits its payload: all that a fuzzer would need long to find. */
static void message(struct world *w, unsigned who, unsigned lavish, struct input *in)
{
    struct store_message m = {0};
    uint8_t transaction = take(in);
    m.header.type = take(in) % 32;
    m.header.req_id = who < PIPES ? ++w->pipe[who].last_request : 1;
    m.header.tx_id = transaction < 128 ? 0 : who < PIPES ? w->pipe[who].last_transaction : transaction;
    m.header.len = take(in);
    for (uint32_t i = 0; i < m.header.len; i++)
        m.payload[i] = (char)take(in);
    for (unsigned i = 0; i <= lavish % 4 * 8; i++)
        put(w, who, &m, sizeof(m.header) + m.header.len);
}

static void raw(struct world *w, unsigned who, struct input *in)
{
    size_t length = take(in);
    length = MIN(length, (size_t)(in->end - in->at));
    put(w, who, in->at, length);
    in->at += length;
}

static void deed_of_pipe(struct world *w, struct pipe *p, unsigned deed)
{
    if (deed == STOP_READING) {
        p->deaf = !p->deaf;
        pipe_wake(p);
    } else if (deed == HANG_UP) {
        if (p->open)
            store_rota_end(&w->rota, &p->transport);
        else
            pipe_open(p);
    }
}

static void deed_of_ring(struct world *w, unsigned deed, struct input *in)
{
    if (deed == POKE) {
        unsigned at = take(in) * 16u + take(in);
        ((char *)w->page)[at % sizeof(*w->page)] = (char)take(in);
    } else if (deed == WORD) {
        ring_word(w, in);
    } else if (deed == ASK) {
        w->page->connection = XENSTORE_RECONNECT;
    } else if (deed == READ) {
        w->page->rsp_cons = w->page->rsp_prod;
    }
    memcpy(w->shadow.req, w->page->req, sizeof(w->shadow.req));
    if (deed >= EVENT)
        ring_event(w);
}

static void step(struct world *w)
{
    for (unsigned i = 0; i < 4; i++) {
        loop_step(&w->loop, 0);
        store_rota_round(&w->rota, 64);
        store_rota_bury(&w->rota);
    }
    fuzz_expect(!memcmp(w->shadow.req, w->page->req, sizeof(w->shadow.req)), "the store wrote what is the guest's");
}

static void play(struct world *w, struct input *in)
{
    while (in->at < in->end) {
        uint8_t b = take(in);
        unsigned who = b & 7, deed = b >> 3;
        if (deed <= MESSAGE_LAST)
            message(w, who, deed == MESSAGE_LAST, in);
        else if (deed == RAW)
            raw(w, who, in);
        else if (deed == WAIT)
            w->engine.now_ns += (uint64_t)take(in) << 24;
        else if (who < PIPES)
            deed_of_pipe(w, &w->pipe[who], deed);
        else
            deed_of_ring(w, deed, in);
        step(w);
    }
}

/* ---- the store ---- */

static int on_introduce(void *context, unsigned domid, uint64_t gfn, uint32_t port)
{
    struct world *w = context;
    (void)gfn;
    (void)port;
    if (domid <= RING_DOMID)
        w->introduced[domid] = true;
    return 0;
}

static void on_release(void *context, unsigned domid)
{
    struct world *w = context;
    if (domid <= RING_DOMID)
        w->introduced[domid] = false;
    store_rota_end_domain(&w->rota, domid);
}

static void dom0_asks(struct world *w, uint32_t type, const char *payload, size_t length)
{
    struct store_message m = {.header = {.type = type, .len = (uint32_t)length}};
    memcpy(m.payload, payload, length);
    pipe_put(&w->pipe[0], &m, sizeof(m.header) + length);
    step(w);
}

static void on_ring_release(void *ctx)
{
    (void)ctx;
}

static void world_open(struct world *w)
{
    w->page = calloc(1, sizeof(*w->page));
    fuzz_expect(w->page && loop_init(&w->loop) == 0 && store_engine_init(&w->engine, NULL, 1) == 0 &&
                    store_rota_init(&w->rota, &w->loop, &w->engine) == 0,
                "no memory");
    w->engine.now_ns = 1000000000;
    w->engine.hooks = (struct store_hooks){.introduce = on_introduce, .release = on_release, .context = w};
    w->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    store_ring_init(&w->ring, &(struct store_ring_link){.page = w->page,
                                                        .fd = w->ring_fd,
                                                        .notify = ring_notify,
                                                        .consume = ring_consume,
                                                        .release = on_ring_release,
                                                        .ctx = w});
    static const unsigned domid[PIPES] = {0, 1, 2, 1};
    for (unsigned i = 0; i < PIPES; i++) {
        w->pipe[i].world = w;
        w->pipe[i].domid = domid[i];
    }
    pipe_open(&w->pipe[0]);
    for (char d = '1'; d <= '0' + RING_DOMID; d++) {
        const char introduce[] = {d, 0, '1', 0, '1', 0}, home[] = {'/', 'h', d, 0},
                   perms[] = {'/', 'h', d, 0, 'n', d, 0};
        dom0_asks(w, XS_INTRODUCE, introduce, sizeof(introduce));
        dom0_asks(w, XS_MKDIR, home, sizeof(home));
        dom0_asks(w, XS_SET_PERMS, perms, sizeof(perms));
    }
    for (unsigned i = 1; i < PIPES; i++)
        pipe_open(&w->pipe[i]);
    w->page->connection = XENSTORE_RECONNECT;
    ring_event(w);
}

static void world_close(struct world *w)
{
    struct err why = {0};
    if (!store_control_check(&w->engine, &why))
        fuzz_expect(0, why.text);
    fuzz_store_again(&w->engine);
    store_rota_deinit(&w->rota);
    store_ring_deinit(&w->ring);
    close(w->ring_fd);
    store_engine_deinit(&w->engine);
    loop_deinit(&w->loop);
    free(w->page);
}

void fuzz_store_wire(const uint8_t *bytes, size_t length)
{
    static struct world w;
    w = (struct world){0};
    struct input in = {bytes, bytes + length};
    world_open(&w);
    play(&w, &in);
    world_close(&w);
}
