/* SPDX-License-Identifier: MIT */
#include "bench/attack/domain.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>

#include "base/spin.h"
#include "grant/gnttab.h"
#include "ring/ring.h"

#define FRAMES_MAX 64

/* The process's own. */
struct self {
    uint16_t domid;
    int memory_fd, fd;
    unsigned char *page[FRAMES_MAX];
    uint32_t generation[FRAMES_MAX];
    unsigned char canary[FRAMES_MAX][PAGE_BYTES]; /* what the victim's frames are to hold */
    struct gnttab *table;
    struct ring_front ring;
};

static void *self_page(struct self *s, uint32_t frame)
{
    assert(frame < FRAMES_MAX && s->page[frame]);
    return s->page[frame];
}

static int self_take(struct self *s, uint32_t frame)
{
    assert(frame < FRAMES_MAX && !s->page[frame]);
    void *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, s->memory_fd, (off_t)frame * PAGE_BYTES);
    if (p == MAP_FAILED)
        return -errno;
    s->page[frame] = p;
    if (s->domid != DOMAIN_VICTIM)
        return 0;
    uint32_t generation = ++s->generation[frame];
    for (uint32_t i = 0; i < PAGE_BYTES; i++)
        s->canary[frame][i] = domain_canary(frame, generation, i);
    memcpy(p, s->canary[frame], PAGE_BYTES);
    return 0;
}

static int self_give(struct self *s, uint32_t frame)
{
    munmap(self_page(s, frame), PAGE_BYTES);
    s->page[frame] = NULL;
    return 0;
}

static void frame_report(const struct self *s, uint32_t frame, struct domain_reply *reply)
{
    uint32_t first = 0;
    while (first < PAGE_BYTES - DOMAIN_SAMPLE && s->page[frame][first] == s->canary[frame][first])
        first++;
    reply->wrong_frame = frame;
    reply->wrong_offset = first;
    memcpy(reply->before, s->canary[frame] + first, DOMAIN_SAMPLE);
    memcpy(reply->after, s->page[frame] + first, DOMAIN_SAMPLE);
}

static int self_check(struct self *s, struct domain_reply *reply)
{
    for (uint32_t i = 0; i < FRAMES_MAX; i++) {
        if (!s->page[i] || memcmp(s->page[i], s->canary[i], PAGE_BYTES) == 0)
            continue;
        if (!reply->wrong++)
            frame_report(s, i, reply);
        memcpy(s->page[i], s->canary[i], PAGE_BYTES);
    }
    return 0;
}

static int frame_new(void *ctx, uint16_t grantee, uint32_t *index, void **page, struct err *e)
{
    struct self *s = ctx;
    (void)grantee;
    if (s->table && gnttab_in_use(s->table))
        return err_set(e, -ENOSPC, "this domain has one frame of grants");
    *index = 0;
    *page = self_page(s, FRAME_GRANTS);
    return 0;
}

static int self_grant(struct self *s, uint32_t frame, bool readonly, uint32_t *gref)
{
    return gnttab_grant(s->table, 0, frame, readonly, gref, NULL);
}

/* A new connection: what was granted before is granted no more. */
static int self_connect(struct self *s, struct domain_reply *reply)
{
    static const struct gnttab_ops ops = {.frame_new = frame_new};
    gnttab_free(take_ptr(s->table));
    memset(self_page(s, FRAME_GRANTS), 0, PAGE_BYTES);
    int r = gnttab_new(&ops, s, &s->table);
    if (r)
        return r;
    ring_front_init(&s->ring, self_page(s, FRAME_RING), PAGE_BYTES, blk_protocol_native.slot_bytes);
    r = self_grant(s, FRAME_RING, false, &reply->gref);
    if (!r)
        r = self_grant(s, FRAME_INDIRECT, false, &reply->indirect);
    return r ? r : self_grant(s, FRAME_LIST, false, &reply->list);
}

static int self_put(struct self *s, const struct domain_call *call)
{
    struct blkif_request_segment *to = self_page(s, FRAME_INDIRECT);
    uint32_t *list = self_page(s, FRAME_LIST);
    for (uint32_t i = 0; call->req.operation == BLKREQ_OP_BUS_MAP && i < call->req.sector_count; i++)
        list[i] = call->segment[i].gref;
    for (uint32_t i = 0; call->req.indirect_pages && i < call->req.segment_count; i++)
        to[i] = (struct blkif_request_segment){.gref = call->segment[i].gref,
                                               .first_sect = call->segment[i].first_sector,
                                               .last_sect = call->segment[i].last_sector};
    blkreq_encode(&blk_protocol_native, &call->req, ring_front_slot(&s->ring));
    ring_front_push(&s->ring);
    return 0;
}

static int self_answer(struct self *s, struct domain_reply *reply)
{
    unsigned char slot[sizeof(union blkif_sring_entry)];
    uint32_t count = 0;
    uint8_t operation;
    if (ring_front_pending(&s->ring, &count) || !count)
        return -EAGAIN;
    ring_front_take(&s->ring, slot, blk_protocol_native.slot_bytes);
    blkreq_decode_response(slot, &reply->id, &operation, &reply->status);
    reply->value = blkreq_decode_bus_address(slot);
    return 0;
}

/* A page is rewritten as fast as a processor can; words as words, so that an entry never tears. */
static int self_poke(struct self *s, const struct domain_call *call)
{
    unsigned char *at = (unsigned char *)self_page(s, call->frame) + call->offset;
    for (uint32_t round = 0; round < call->rounds; round++) {
        const unsigned char *from = call->bytes[(round + 1) & 1];
        for (uint32_t i = 0; i + 4 <= call->length; i += 4) {
            uint32_t word;
            memcpy(&word, from + i, sizeof(word));
            __atomic_store_n((uint32_t *)(void *)(at + i), word, __ATOMIC_RELAXED);
        }
    }
    return 0;
}

static int self_do(struct self *s, const struct domain_call *call, struct domain_reply *reply)
{
    for (uint32_t i = 0; i < call->spins; i++)
        spin_relax();
    switch ((enum domain_op)call->op) {
    case DOMAIN_TAKE: return self_take(s, call->frame);
    case DOMAIN_GIVE: return self_give(s, call->frame);
    case DOMAIN_CHECK: return self_check(s, reply);
    case DOMAIN_FILL: memset(self_page(s, call->frame), call->byte, PAGE_BYTES); return 0;
    case DOMAIN_CONNECT: return self_connect(s, reply);
    case DOMAIN_GRANT: return self_grant(s, call->frame, call->readonly, &reply->gref);
    case DOMAIN_END: return gnttab_end(s->table, call->gref);
    case DOMAIN_PUT: return self_put(s, call);
    case DOMAIN_ANSWER: return self_answer(s, reply);
    case DOMAIN_POKE: return self_poke(s, call);
    case DOMAIN_QUIT: break;
    }
    return -EINVAL;
}

static void self_run(struct self *s)
{
    struct domain_call call;
    while (recv(s->fd, &call, sizeof(call), 0) == sizeof(call) && call.op != DOMAIN_QUIT) {
        struct domain_reply reply = {0};
        reply.result = self_do(s, &call, &reply);
        if (send(s->fd, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
            break;
    }
    gnttab_free(s->table);
    free(s);
}

int domain_start(struct domain *d, uint16_t domid, int memory_fd)
{
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fd[0]);
        struct self *s = calloc(1, sizeof(*s));
        if (s) {
            *s = (struct self){.domid = domid, .memory_fd = memory_fd, .fd = fd[1]};
            self_run(s);
        }
        _exit(0);
    }
    close(fd[1]);
    if (pid < 0) {
        close(fd[0]);
        return -errno;
    }
    *d = (struct domain){.pid = pid, .fd = fd[0], .domid = domid};
    return 0;
}

void domain_stop(struct domain *d)
{
    const struct domain_call quit = {.op = DOMAIN_QUIT};
    if (!d->pid)
        return;
    (void)send(d->fd, &quit, sizeof(quit), MSG_NOSIGNAL);
    close(d->fd);
    waitpid(d->pid, NULL, 0);
    d->pid = 0;
}

void domain_call_late(struct domain *d, const struct domain_call *call)
{
    assert(!d->late);
    ssize_t n = send(d->fd, call, sizeof(*call), MSG_NOSIGNAL);
    assert(n == sizeof(*call));
    d->late = true;
}

void domain_answer_late(struct domain *d, struct domain_reply *reply)
{
    assert(d->late);
    ssize_t n = recv(d->fd, reply, sizeof(*reply), 0);
    assert(n == sizeof(*reply));
    d->late = false;
}

void domain_call(struct domain *d, const struct domain_call *call, struct domain_reply *reply)
{
    domain_call_late(d, call);
    domain_answer_late(d, reply);
}
