/* SPDX-License-Identifier: MIT */
#include "backend/blk/blkstats.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct blkstats_word {
    const char *name;
    size_t offset;
};

#define WORD(field)                              \
    {                                            \
#field, offsetof(struct blkstats, field) \
    }

static const struct blkstats_word blkstats_words[] = {
    WORD(requests),
    WORD(reads),
    WORD(writes),
    WORD(flushes),
    WORD(syncs),
    WORD(discards),
    WORD(sectors_read),
    WORD(sectors_written),
    WORD(sectors_discarded),
    WORD(errors),
    WORD(io_errors),
    WORD(batches),
    WORD(notifications),
    WORD(events),
    WORD(pauses),
    WORD(dma_maps),
    WORD(dma_copied_bytes),
    WORD(dma_plain),
    WORD(dma_registered_bytes),
};

static uint64_t counters_sum(const blkcounter *c, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += blkcounter_get(&c[i]);
    return sum;
}

void blkstats_print(const struct blkstats *s, char *out, size_t size)
{
    int used = snprintf(out, size, "bad_requests=%" PRIu64 " bad_grants=%" PRIu64,
                        counters_sum(s->bad_requests, BLKREQ_E_COUNT_), counters_sum(s->bad_grants, GRANT_E_COUNT_));
    for (unsigned i = 0; i < ARRAY_SIZE(blkstats_words) && used > 0 && (size_t)used < size; i++) {
        const blkcounter *c = (const blkcounter *)(const void *)((const char *)s + blkstats_words[i].offset);
        used += snprintf(out + used, size - (size_t)used, " %s=%" PRIu64, blkstats_words[i].name, blkcounter_get(c));
    }
}

/* The code whose counter moved most since it was last seen; 0 where none did. */
static unsigned counters_news(const blkcounter *c, uint64_t *seen, unsigned n, uint64_t *count)
{
    unsigned code = 0;
    uint64_t most = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t now = blkcounter_get(&c[i]), moved = now - seen[i];
        seen[i] = now;
        *count += moved;
        if (moved > most) {
            most = moved;
            code = i;
        }
    }
    return code;
}

const char *blkstats_news(const struct blkstats *s, struct blkstats_seen *seen, uint64_t *count)
{
    *count = 0;
    unsigned request = counters_news(s->bad_requests, seen->bad_requests, BLKREQ_E_COUNT_, count);
    unsigned grant = counters_news(s->bad_grants, seen->bad_grants, GRANT_E_COUNT_, count);
    uint64_t io = blkcounter_get(&s->io_errors);
    bool storage = io != seen->io_errors;
    *count += io - seen->io_errors;
    seen->io_errors = io;
    if (storage)
        return strerror((int)blkcounter_get(&s->last_io_errno));
    if (grant)
        return grant_error_text((int)grant);
    return request ? blkreq_error_text((int)request) : NULL;
}
