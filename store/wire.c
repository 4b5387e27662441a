/* SPDX-License-Identifier: MIT */
#include <errno.h> /* before the wire's header: the error table depends on it */

#include "store/wire.h"

#include <string.h>

#include "base/parse.h"

int store_wire_check(const struct xsd_sockmsg *header)
{
    return header->len > XENSTORE_PAYLOAD_MAX ? STORE_E_OVERSIZE : 0;
}

const char *store_wire_error_name(int errno_value)
{
    for (size_t i = 0; i < ARRAY_SIZE(xsd_errors); i++)
        if (xsd_errors[i].errnum == errno_value)
            return xsd_errors[i].errstring;
    return errno_value == EDQUOT ? "EQUOTA" : "EINVAL"; /* the former is the OCaml server's alone (store/answers.h) */
}

int store_wire_first(const char *payload, size_t length, const char **string, size_t *rest_offset)
{
    const char *end = memchr(payload, '\0', length);
    if (!end)
        return EINVAL;
    *string = payload;
    *rest_offset = (size_t)(end - payload) + 1;
    return 0;
}

int store_wire_strings(const char *payload, size_t length, const char **strings, unsigned count)
{
    size_t at = 0, used;
    for (unsigned i = 0; i < count; i++, at += used)
        if (store_wire_first(payload + at, length - at, &strings[i], &used) != 0)
            return EINVAL;
    return at == length ? 0 : EINVAL;
}

int store_wire_number(const char *text, uint64_t max, uint64_t *out)
{
    if (text[strspn(text, "0123456789")] != '\0' || parse_u64(text, 0, max, out) < 0)
        return EINVAL;
    return 0;
}
