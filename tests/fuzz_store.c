/* SPDX-License-Identifier: MIT */
#include "tests/fuzz_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/control.h"
#include "store/record.h"
#include "store/state.h"

const struct fuzz_target fuzz_targets[] = {
    {"wire", fuzz_store_wire},
    {"record", fuzz_store_record},
    {"state", fuzz_store_state},
};
const unsigned fuzz_target_count = ARRAY_SIZE(fuzz_targets);

void fuzz_expect(int truth, const char *sentence)
{
    if (truth)
        return;
    fprintf(stderr, "untrue: %s\n", sentence);
    abort();
}

static void engine_open(struct store_engine *g)
{
    fuzz_expect(store_engine_init(g, NULL, 1) == 0, "no memory");
}

static void engine_close(struct store_engine *g)
{
    struct err why = {0};
    if (!store_control_check(g, &why))
        fuzz_expect(0, why.text);
    store_engine_deinit(g);
}

/* ---- a record ---- */

struct bytes {
    char *at;
    size_t length;
};

static int bytes_append(void *context, const char *more, size_t length)
{
    struct bytes *b = context;
    char *at = realloc(b->at, b->length + length + 1);
    if (!at)
        return -ENOMEM;
    memcpy(at + b->length, more, length);
    b->at = at;
    b->length += length;
    return 0;
}

static int record_apply_one(void *context, const char *bytes, size_t length)
{
    return store_record_apply(context, bytes, length);
}

void fuzz_store_again(const struct store_engine *g)
{
    struct store_engine again;
    struct bytes first = {0}, second = {0};
    engine_open(&again);
    fuzz_expect(store_record_snapshot(g, bytes_append, &first) == 0, "no memory");
    fuzz_expect(store_record_snapshot(g, record_apply_one, &again) == 0, "a snapshot cannot be read again");
    fuzz_expect(store_record_snapshot(&again, bytes_append, &second) == 0, "no memory");
    fuzz_expect(first.length == second.length && (!first.length || !memcmp(first.at, second.at, first.length)),
                "a snapshot that was read again is another");
    free(first.at);
    free(second.at);
    engine_close(&again);
}

void fuzz_store_record(const uint8_t *bytes, size_t length)
{
    struct store_engine g;
    engine_open(&g);
    store_record_apply(&g, (const char *)bytes, length);
    fuzz_store_again(&g);
    engine_close(&g);
}

/* ---- the stream of a live update ---- */

static void state_write(struct store_stream_out *o, const struct store_engine *g)
{
    store_stream_begin(o);
    store_state_put_domains(o, g);
    store_state_put_nodes(o, g);
    store_stream_end(o);
    fuzz_expect(!o->failed, "no memory");
}

/* The numbers of versions go on from each reading to the next: what is written the second time and the third is as
 * long, and reads. */
void fuzz_store_state(const uint8_t *bytes, size_t length)
{
    struct store_engine g, again;
    struct err e = {0};
    struct store_stream_out first = {0}, second = {0};
    engine_open(&g);
    engine_open(&again);
    if (store_state_load(&g, (const char *)bytes, length, NULL, &e)) {
        store_engine_deinit(&g);
    } else {
        state_write(&first, &g);
        fuzz_expect(store_state_load(&again, first.bytes, first.length, NULL, &e) == 0, e.text);
        state_write(&second, &again);
        fuzz_expect(first.length == second.length, "a state that was read again is another");
        engine_close(&g);
    }
    engine_close(&again);
    store_stream_free(&first);
    store_stream_free(&second);
}
