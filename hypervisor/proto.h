/* SPDX-License-Identifier: MIT */
/* hypervisor/proto.h: what is said on the hypervisor role's sockets.
 *
 * SOCK_SEQPACKET, host byte order (both ends are processes of one machine), fixed-size structs without padding. The
 * client sends a request, the server answers each with one struct hv_reply of the same op and seq, in order; events
 * may come between. The first request is HV_HELLO. Descriptors travel beside replies only, none beside requests.
 *
 * A request is struct hv_request, and for HV_DOMAIN_CREATE a name behind it. hv_request_check() is the one place that
 * judges it before anything is done: exact length, known op, every field that the op does not use zero. What fails
 * there is no client of ours: it is disconnected. What passes gets an answer, which may be a refusal:
 *
 *   -ENOENT   no such thing for you. One answer for what is not there and for what was shared with somebody else, so
 *             that nobody can count another domain's extents and ports by trying
 *   -EACCES   domain 0's request, or a thing of another process of your own domain
 *   -EDQUOT   reply.limit (enum hv_limit) names the limit
 *   -EBUSY    the port is bound
 *   -EAGAIN   the port's owner has not been told yet that its last peer is gone: try again
 *   -EINVAL -EEXIST -ENOSPC and what the kernel says (-ENOMEM, -EMFILE …)
 */
#ifndef HYPERVISOR_PROTO_H
#define HYPERVISOR_PROTO_H

#include "base/util.h"

#define HV_VERSION    1
#define HV_NAME_BYTES 64
#define HV_DOMID_MAX  0x7fefu /* below DOMID_FIRST_RESERVED of <xen/xen.h> */
#define HV_DOMID_NONE 0x7ff4u /* DOMID_INVALID of <xen/xen.h> */
#define HV_FDS_MAX    2       /* beside one reply */

/* Of memory that its grantee may only read: F_SEAL_SEAL | F_SEAL_FUTURE_WRITE of <linux/fcntl.h>. */
#define HV_SEALS_READONLY (0x0001 | 0x0010)

/* What each request uses of domid, flag, value, and what its reply carries (body member; descriptors). */
enum hv_op {
    HV_HELLO = 1,       /* value: HV_VERSION           hello */
    HV_DOMAIN_CREATE,   /* name                        domid */
    HV_DOMAIN_DESTROY,  /* domid */
    HV_DOMAIN_NEXT,     /* domid: the first one looked at   domain; its domid is HV_DOMID_NONE where there is none */
    HV_DOMAIN_WATCH,    /* - */
    HV_EXTENT_ALLOC,    /* domid: grantee, flag: read-only, value: frames      extent; memfd */
    HV_EXTENT_SEAL,     /* value: id; the owner mapped a read-only one and added HV_SEALS_READONLY. Else -EPERM */
    HV_EXTENT_FREE,     /* value: id */
    HV_EXTENT_MAP,      /* domid: owner, value: gfn    extent; memfd */
    HV_EXTENT_PUT,      /* domid: owner, value: id */
    HV_GRANT_FRAME_NEW, /* domid: grantee              extent, its id the index; memfd */
    HV_GRANT_FRAME_MAP, /* domid: owner, value: index  extent; memfd */
    HV_GRANT_FRAME_PUT, /* domid: owner, value: index */
    HV_PORT_ALLOC,      /* domid: remote               port; to wait on, to notify with */
    HV_PORT_BIND,       /* domid: remote, value: its port   port; to wait on, to notify with */
    HV_PORT_CLOSE,      /* value: port */
    HV_PORT_STATUS,     /* value: port                 port */
    HV_OP_END_
};

enum hv_event_op {
    HV_INSTANCE_GONE = 0x101, /* domid, value: instance. We held its memory or shared a channel */
    HV_EXTENT_REVOKED,        /* domid, value: id. Its owner freed what we hold: put it */
    HV_DOMAIN_GONE,           /* domid. To those who watch */
    HV_REFUSED,               /* value: errno. Before a connection that is not accepted is closed */
};

/* Names of limits; struct hypervisor_limits says how much. */
enum hv_limit {
    HV_LIMIT_NONE,
    HV_LIMIT_INSTANCES,
    HV_LIMIT_EXTENTS,
    HV_LIMIT_FRAMES,
    HV_LIMIT_GRANT_FRAMES,
    HV_LIMIT_PORTS,
    HV_LIMIT_DESCRIPTORS, /* of the hypervisor role, shared out between domains: domain.h */
    HV_LIMIT_END_
};

enum hv_port_status { HV_PORT_CLOSED, HV_PORT_UNBOUND, HV_PORT_INTERDOMAIN };

struct hv_request {
    uint32_t op; /* enum hv_op */
    uint32_t seq;
    uint16_t domid;
    uint16_t flag;
    uint32_t value;
};

struct hv_request_create { /* the longest request */
    struct hv_request head;
    char name[HV_NAME_BYTES]; /* 1 … 63 of A-Z a-z 0-9 _ . + -, then NULs */
};

struct hv_hello {
    uint32_t instance;
    uint16_t domid;
    uint16_t reserved;
};

struct hv_extent {
    uint32_t id; /* of its domain, not used again */
    uint32_t base_gfn;
    uint32_t frame_count;
    uint32_t instance; /* whose it is */
    uint32_t readonly;
    uint32_t reserved;
    uint64_t left; /* of HV_GRANT_FRAME_MAP, a bit for each index: the owner's frames for this grantee in which a
                    * process that died may have left marks, and that no other of its domain holds now */
};

struct hv_port {
    uint32_t port;
    uint32_t status; /* enum hv_port_status */
    uint32_t instance;
    uint32_t remote_port; /* 0: unbound */
    uint32_t remote;      /* domid */
};

struct hv_domain {
    uint64_t refusals;
    uint32_t instances, extents, frames, grant_frames, ports, held_extents;
    uint16_t domid;
    uint16_t dying;
    uint32_t reserved;
    char name[HV_NAME_BYTES];
};

struct hv_reply {
    uint32_t op, seq;
    int32_t result; /* 0 or -errno */
    uint32_t limit; /* enum hv_limit, of -EDQUOT */
    union {
        struct hv_hello hello;
        struct hv_extent extent;
        struct hv_port port;
        struct hv_domain domain;
        uint32_t domid;
    } body; /* zero where the reply has less */
};

struct hv_event {
    uint32_t op;  /* enum hv_event_op */
    uint32_t seq; /* 0 */
    uint16_t domid;
    uint16_t reserved;
    uint32_t value;
};

_Static_assert(sizeof(struct hv_request) == 16 && offsetof(struct hv_request, value) == 12, "wire");
_Static_assert(sizeof(struct hv_request_create) == 80, "wire");
_Static_assert(sizeof(struct hv_hello) == 8 && sizeof(struct hv_extent) == 32 && sizeof(struct hv_port) == 20, "wire");
_Static_assert(sizeof(struct hv_domain) == 104 && offsetof(struct hv_domain, domid) == 32, "wire");
_Static_assert(sizeof(struct hv_reply) == 120 && offsetof(struct hv_reply, body) == 16, "wire");
_Static_assert(sizeof(struct hv_event) == 16, "wire");

/* NULL where a request of `length` bytes may be acted on, else what is wrong with it. `data` is aligned and has room
 * for the longest request. */
const char *hv_request_check(const struct hv_request_create *data, size_t length);
/* For people: "EXTENT_MAP"; "frames". */
const char *hv_op_name(uint32_t op);
const char *hv_limit_name(uint32_t limit);

#endif
