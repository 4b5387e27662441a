/* SPDX-License-Identifier: MIT */
/* bench/vhost.h: the driver's side of one vhost-user-blk device with one split virtqueue: what a virtual machine's
 * memory and its monitor would be, and nothing more, so that a vhost-user server can be timed by the load that times
 * ours.
 *
 * vhost_open() makes a memfd with the ring and the requests in it, and tells the server of it in the messages of the
 * vhost-user specification; the layouts of ring and requests are those of <linux/virtio_*.h>. Request i is a chain of
 * three descriptors, header, data, status, written once, with the data of slot i. That flatters the server, which sees
 * no guest's page tables, no exits of a virtual machine and always the same memory.
 *
 * The server is trusted: it is a program that the benchmark started.
 */
#ifndef BENCH_VHOST_H
#define BENCH_VHOST_H

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/unixsock.h"

#define VHOST_CHAIN           3              /* descriptors of a request */
#define VHOST_GUEST_BASE      0x100000000ull /* where the guest would see the memory; anything but 0 */
#define VHOST_MESSAGE_VERSION 1u
#define VHOST_F_PROTOCOL      30 /* feature bit: there are protocol features */
#define VHOST_PROTOCOL_CONFIG 9  /* protocol feature bit: GET_CONFIG is served */
#define VHOST_RING_OFFSET     0u
#define VHOST_HEADER_OFFSET   (256u << 10)
#define VHOST_STATUS_OFFSET   (512u << 10)
#define VHOST_DATA_OFFSET     (1u << 20)
#define VHOST_CONFIG_BYTES    8u /* of the configuration only the capacity is asked for */

enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_GET_CONFIG = 24,
};

struct vhost_header {
    uint32_t request, flags, body_bytes;
};

union vhost_body {
    uint64_t number;
    struct {
        uint32_t index, value;
    } vring;
    struct {
        uint32_t index, flags;
        uint64_t descriptors, used, available, log;
    } address;
    struct {
        uint32_t count, padding;
        uint64_t guest, bytes, user, offset;
    } memory;
    struct {
        uint32_t offset, bytes, flags;
        uint8_t data[VHOST_CONFIG_BYTES];
    } config;
};
_Static_assert(sizeof(struct vhost_header) == 12, "vhost-user: header");
_Static_assert(offsetof(union vhost_body, config.data) == 12, "vhost-user: config");

struct vhost {
    int socket, kick_fd, call_fd;
    bool event_index; /* both sides say at which index they want to be told */
    uint64_t capacity_bytes;
    size_t memory_bytes;
    unsigned char *memory, *data;
    struct vring ring;
    struct virtio_blk_outhdr *header;
    volatile uint8_t *status;
};

/* Sends a message, with a descriptor if fd >= 0, and takes `reply_bytes` of an answer into `body`. */
static inline int vhost_tell(struct vhost *v, enum vhost_request request, union vhost_body *body, uint32_t body_bytes,
                             int fd, uint32_t reply_bytes, struct err *e)
{
    unsigned char message[sizeof(struct vhost_header) + sizeof(*body)];
    struct vhost_header h = {request, VHOST_MESSAGE_VERSION, body_bytes};
    memcpy(message, &h, sizeof(h));
    memcpy(message + sizeof(h), body, body_bytes);
    int r = unixsock_send(v->socket, message, sizeof(h) + body_bytes, &fd, fd >= 0, 0);
    if (r < 0)
        return err_set(e, r, "vhost-user message %d cannot be sent", (int)request);
    if (!reply_bytes)
        return 0;
    if (recv(v->socket, &h, sizeof(h), MSG_WAITALL) != sizeof(h) || h.body_bytes != reply_bytes ||
        recv(v->socket, body, reply_bytes, MSG_WAITALL) != (ssize_t)reply_bytes)
        return err_set(e, -EPROTO, "the vhost-user server has no proper answer to message %d", (int)request);
    return 0;
}

static inline int vhost_tell_number(struct vhost *v, enum vhost_request request, uint64_t number, int fd, struct err *e)
{
    union vhost_body body = {.number = number};
    return vhost_tell(v, request, &body, sizeof(body.number), fd, 0, e);
}

static inline int vhost_tell_vring(struct vhost *v, enum vhost_request request, uint32_t value, struct err *e)
{
    union vhost_body body = {.vring = {.index = 0, .value = value}};
    return vhost_tell(v, request, &body, sizeof(body.vring), -1, 0, e);
}

/* Agrees on features and learns the capacity. */
static inline int vhost_negotiate(struct vhost *v, struct err *e)
{
    union vhost_body body = {0};
    int r = vhost_tell(v, VHOST_GET_FEATURES, &body, 0, -1, sizeof(body.number), e);
    uint64_t features = body.number;
    uint64_t needed = 1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_F_PROTOCOL;
    if (!r && (features & needed) != needed)
        r = err_set(e, -EPROTO, "the server has no virtio 1 or no protocol features");
    if (r || (r = vhost_tell(v, VHOST_GET_PROTOCOL_FEATURES, &body, 0, -1, sizeof(body.number), e)))
        return r;
    if (!(body.number >> VHOST_PROTOCOL_CONFIG & 1))
        return err_set(e, -EPROTO, "the server does not tell the disk's size");
    v->event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    uint64_t wanted = needed | (features & 1ull << VIRTIO_RING_F_EVENT_IDX);
    union vhost_body config = {.config = {.bytes = VHOST_CONFIG_BYTES}};
    uint32_t config_bytes = offsetof(union vhost_body, config.data) + VHOST_CONFIG_BYTES;
    if ((r = vhost_tell_number(v, VHOST_SET_PROTOCOL_FEATURES, 1ull << VHOST_PROTOCOL_CONFIG, -1, e)) ||
        (r = vhost_tell(v, VHOST_GET_CONFIG, &config, config_bytes, -1, config_bytes, e)) ||
        (r = vhost_tell(v, VHOST_SET_OWNER, &body, 0, -1, 0, e)))
        return r;
    uint64_t sectors;
    memcpy(&sectors, config.config.data, sizeof(sectors));
    v->capacity_bytes = sectors * SECTOR_BYTES;
    return vhost_tell_number(v, VHOST_SET_FEATURES, wanted, -1, e);
}

/* Memory for ring and requests, known to the server as guest memory. */
static inline int vhost_share(struct vhost *v, unsigned depth, uint32_t block_bytes, struct err *e)
{
    _cleanup_close_ int fd = memfd_create("vhost", MFD_CLOEXEC);
    v->memory_bytes = VHOST_DATA_OFFSET + (size_t)depth * block_bytes;
    if (fd < 0 || ftruncate(fd, (off_t)v->memory_bytes) < 0)
        return err_set(e, -errno, "no memory to share");
    v->memory = mmap(NULL, v->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (v->memory == MAP_FAILED)
        return err_set(e, -errno, "no memory to share");
    v->header = (void *)(v->memory + VHOST_HEADER_OFFSET);
    v->status = v->memory + VHOST_STATUS_OFFSET;
    v->data = v->memory + VHOST_DATA_OFFSET;
    union vhost_body body = {
        .memory = {.count = 1, .guest = VHOST_GUEST_BASE, .bytes = v->memory_bytes, .user = (uintptr_t)v->memory}};
    return vhost_tell(v, VHOST_SET_MEM_TABLE, &body, sizeof(body.memory), fd, 0, e);
}

static inline int vhost_start_ring(struct vhost *v, struct err *e)
{
    v->kick_fd = eventfd(0, EFD_CLOEXEC);
    v->call_fd = eventfd(0, EFD_CLOEXEC);
    if (v->kick_fd < 0 || v->call_fd < 0)
        return err_set(e, -errno, "no eventfd");
    union vhost_body body = {.address = {.descriptors = (uintptr_t)v->ring.desc,
                                         .used = (uintptr_t)v->ring.used,
                                         .available = (uintptr_t)v->ring.avail}};
    int r;
    if ((r = vhost_tell_vring(v, VHOST_SET_VRING_NUM, v->ring.num, e)) ||
        (r = vhost_tell_vring(v, VHOST_SET_VRING_BASE, 0, e)) ||
        (r = vhost_tell(v, VHOST_SET_VRING_ADDR, &body, sizeof(body.address), -1, 0, e)) ||
        (r = vhost_tell_number(v, VHOST_SET_VRING_CALL, 0, v->call_fd, e)) ||
        (r = vhost_tell_number(v, VHOST_SET_VRING_KICK, 0, v->kick_fd, e)))
        return r;
    return vhost_tell_vring(v, VHOST_SET_VRING_ENABLE, 1, e);
}

static inline struct vring_desc vhost_descriptor(const struct vhost *v, const volatile void *at, uint32_t bytes,
                                                 unsigned flags, unsigned next)
{
    uint64_t guest = VHOST_GUEST_BASE + (uint64_t)((const volatile unsigned char *)at - v->memory);
    return (struct vring_desc){guest, bytes, (uint16_t)flags, (uint16_t)next};
}

/* The chain of each request, once for all. */
static inline void vhost_write_chains(struct vhost *v, unsigned depth, uint32_t block_bytes, bool write)
{
    for (unsigned i = 0; i < depth; i++) {
        struct vring_desc *d = v->ring.desc + VHOST_CHAIN * i;
        unsigned n = VHOST_CHAIN * i, data = VRING_DESC_F_NEXT | (write ? 0 : VRING_DESC_F_WRITE);
        v->header[i].type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
        d[0] = vhost_descriptor(v, &v->header[i], sizeof(v->header[i]), VRING_DESC_F_NEXT, n + 1);
        d[1] = vhost_descriptor(v, v->data + (size_t)i * block_bytes, block_bytes, data, n + 2);
        d[2] = vhost_descriptor(v, &v->status[i], 1, VRING_DESC_F_WRITE, 0);
    }
}

/* Connects to the server at `path`, for `depth` requests of `block_bytes` in flight. 0 or -errno with a sentence. */
static inline int vhost_open(struct vhost *v, const char *path, unsigned depth, uint32_t block_bytes, bool write,
                             struct err *e)
{
    *v = (struct vhost){.kick_fd = -1, .call_fd = -1};
    unsigned ring_size = 4;
    while (ring_size < VHOST_CHAIN * depth)
        ring_size *= 2;
    v->socket = unixsock_connect(path, SOCK_STREAM, e);
    if (v->socket < 0)
        return v->socket;
    int r = vhost_negotiate(v, e);
    if (r || (r = vhost_share(v, depth, block_bytes, e)))
        return r;
    vring_init(&v->ring, ring_size, v->memory + VHOST_RING_OFFSET, 4096);
    vhost_write_chains(v, depth, block_bytes, write);
    return vhost_start_ring(v, e);
}

/* Stops the queue, in which nothing may be in flight, and gives all back. */
static inline void vhost_close(struct vhost *v)
{
    union vhost_body body = {0};
    vhost_tell(v, VHOST_GET_VRING_BASE, &body, sizeof(body.vring), -1, sizeof(body.vring), NULL);
    close(v->socket);
    close(v->kick_fd);
    close(v->call_fd);
    munmap(v->memory, v->memory_bytes);
}

#endif
