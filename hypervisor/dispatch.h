/* SPDX-License-Identifier: MIT */
/* hypervisor/dispatch.h: one request in, one reply out. The request has passed hv_request_check(); who asks is the
 * instance and nothing that the request says. */
#ifndef HYPERVISOR_DISPATCH_H
#define HYPERVISOR_DISPATCH_H

#include "hypervisor/instance.h"

/* Acts and replies. `accepted`: for the socket of a domain that is created. */
void dispatch(struct instance *i, const struct hv_request_create *request, loop_fn *accepted);

#endif
