/* SPDX-License-Identifier: MIT */
/* store/wire.h: messages of <xen/io/xs_wire.h> as they come from a peer and go to it; knows no socket.
 *
 * A header is checked before a byte of its payload is awaited or a byte of memory is taken: a length above
 * XENSTORE_PAYLOAD_MAX ends the connection, whatever the type. Requests and replies are whole messages in buffers of
 * fixed size; both are little endian like every machine this runs on.
 */
#ifndef STORE_WIRE_H
#define STORE_WIRE_H

#include "base/util.h"
#include <xen/io/xs_wire.h>

_Static_assert(sizeof(struct xsd_sockmsg) == 16, "the wire's header");
_Static_assert(offsetof(struct xsd_sockmsg, len) == 12, "the wire's header");

/* What a peer can do wrong that ends its connection; all else is answered with XS_ERROR. */
enum store_wire_error { STORE_E_OVERSIZE = 1, STORE_E_UNREAD_EVENTS };

struct store_message {
    struct xsd_sockmsg header;
    char payload[XENSTORE_PAYLOAD_MAX];
};

/* 0 or STORE_E_OVERSIZE. */
int store_wire_check(const struct xsd_sockmsg *header);
/* The name that goes over the wire; EINVAL's where the wire knows none for it. */
const char *store_wire_error_name(int errno_value);
/* Splits a payload that must consist of `count` NUL-terminated strings and nothing else: 0 or EINVAL. */
int store_wire_strings(const char *payload, size_t length, const char **strings, unsigned count);
/* Splits off the first NUL-terminated string; *rest_offset is where the rest begins. 0 or EINVAL. */
int store_wire_first(const char *payload, size_t length, const char **string, size_t *rest_offset);

/* Decimal digits and nothing else, of 0 … `max`: 0 or EINVAL. */
int store_wire_number(const char *text, uint64_t max, uint64_t *out);

#endif
