/* SPDX-License-Identifier: MIT */
#include "hypervisor/proto.h"

#include <string.h>

enum { DOMID = 1, FLAG = 2, VALUE = 4, NAME = 8 };

static const struct {
    const char *name;
    unsigned uses;
} ops[HV_OP_END_] = {
    [HV_HELLO] = {"HELLO", VALUE},
    [HV_DOMAIN_CREATE] = {"DOMAIN_CREATE", NAME},
    [HV_DOMAIN_DESTROY] = {"DOMAIN_DESTROY", DOMID},
    [HV_DOMAIN_NEXT] = {"DOMAIN_NEXT", DOMID},
    [HV_DOMAIN_WATCH] = {"DOMAIN_WATCH", 0},
    [HV_EXTENT_ALLOC] = {"EXTENT_ALLOC", DOMID | FLAG | VALUE},
    [HV_EXTENT_SEAL] = {"EXTENT_SEAL", VALUE},
    [HV_EXTENT_FREE] = {"EXTENT_FREE", VALUE},
    [HV_EXTENT_MAP] = {"EXTENT_MAP", DOMID | VALUE},
    [HV_EXTENT_PUT] = {"EXTENT_PUT", DOMID | VALUE},
    [HV_GRANT_FRAME_NEW] = {"GRANT_FRAME_NEW", DOMID},
    [HV_GRANT_FRAME_MAP] = {"GRANT_FRAME_MAP", DOMID | VALUE},
    [HV_GRANT_FRAME_PUT] = {"GRANT_FRAME_PUT", DOMID | VALUE},
    [HV_PORT_ALLOC] = {"PORT_ALLOC", DOMID},
    [HV_PORT_BIND] = {"PORT_BIND", DOMID | VALUE},
    [HV_PORT_CLOSE] = {"PORT_CLOSE", VALUE},
    [HV_PORT_STATUS] = {"PORT_STATUS", VALUE},
};

static bool name_is_plain(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-";
    size_t length = strnlen(name, HV_NAME_BYTES);
    if (length == 0 || length == HV_NAME_BYTES || strspn(name, plain) != length)
        return false;
    for (size_t i = length; i < HV_NAME_BYTES; i++)
        if (name[i])
            return false;
    return true;
}

const char *hv_request_check(const struct hv_request_create *data, size_t length)
{
    const struct hv_request *r = &data->head;
    if (length < sizeof(*r))
        return "shorter than a request";
    if (r->op == 0 || r->op >= HV_OP_END_)
        return "unknown operation";
    unsigned uses = ops[r->op].uses;
    if (length != (uses & NAME ? sizeof(*data) : sizeof(*r)))
        return "wrong length";
    if ((!(uses & DOMID) && r->domid) || (!(uses & VALUE) && r->value) || r->flag > (uses & FLAG ? 1 : 0))
        return "a reserved field is not zero";
    if ((uses & NAME) && !name_is_plain(data->name))
        return "bad domain name";
    return NULL;
}

const char *hv_op_name(uint32_t op)
{
    return op && op < HV_OP_END_ ? ops[op].name : "?";
}

const char *hv_limit_name(uint32_t limit)
{
    static const char *const names[HV_LIMIT_END_] = {
        [HV_LIMIT_NONE] = "none",
        [HV_LIMIT_INSTANCES] = "instances",
        [HV_LIMIT_EXTENTS] = "extents",
        [HV_LIMIT_FRAMES] = "frames",
        [HV_LIMIT_GRANT_FRAMES] = "grant frames",
        [HV_LIMIT_PORTS] = "event-channel ports",
        [HV_LIMIT_DESCRIPTORS] = "file descriptors of the hypervisor role",
    };
    return limit < HV_LIMIT_END_ ? names[limit] : "?";
}
