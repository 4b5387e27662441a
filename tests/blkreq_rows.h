/* SPDX-License-Identifier: MIT */
/* tests/blkreq_rows.h: a request of our extensions on the wire of each protocol row. After cmocka. */
#ifndef TESTS_BLKREQ_ROWS_H
#define TESTS_BLKREQ_ROWS_H

#include <string.h>

#include "ring/blkreq.h"

static const char *const blkreq_keys[] = {"x86_64-abi", "arm-abi", "x86_32-abi"};

/* Encodes as each row does, then decodes: what comes of it, the same in all. */
static inline int decode_of(const struct blkreq *in, const struct blkreq_limits *limits, struct blkreq *out)
{
    struct blkreq before;
    int first = -1;
    for (size_t i = 0; i < ARRAY_SIZE(blkreq_keys); i++) {
        const struct blk_protocol *row = blk_protocol_find(blkreq_keys[i]);
        unsigned char slot[112];
        memset(slot, 0xa5, sizeof(slot));
        memset(out, 0, sizeof(*out));
        blkreq_encode(row, in, slot);
        int code = blkreq_decode(row, slot, limits, out);
        assert_true(first < 0 || code == first);
        assert_true(out->id == in->id && out->operation_raw == in->operation);
        assert_true(first < 0 || out->segment_count == before.segment_count);
        assert_true(first < 0 || out->indirect_pages == before.indirect_pages);
        before = *out;
        first = code;
    }
    return first;
}

#endif
