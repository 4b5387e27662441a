/* SPDX-License-Identifier: MIT */
/* tests/test_ring_model.h: the code of ring/ring.h over a modelled memory, one step at a time. Included once, by
 * test_ring_holdoff.c, which has the programs of the two ends and the search.
 *
 * This file includes ring/ring.h with the atomics, the fence and the copies of slots replaced by steps of the model;
 * ring_front_push(), ring_back_arm() and the others run as they are. An operation stops before each of its steps; to
 * continue it, it is run again from its beginning with its loads answered as they were: they, and its end's private
 * indices, are all that it depends on. So a state of the model is plain bytes: memory, store buffers, both ends, both
 * event bits; no stacks.
 *
 * The memory: a store goes into its thread's buffer and from there, at any later time, into memory; a load sees its own
 * thread's buffered stores first; a fence waits until the buffer is empty. Buffers are first-in-first-out (TSO: x86),
 * or keep order only for each word and in front of release stores (`weak`; loads stay in order, so it is not all of
 * Arm). Setting an event bit does not flush the buffer here, although a system call would.
 */
#ifndef TESTS_TEST_RING_MODEL_H
#define TESTS_TEST_RING_MODEL_H

#include "ring/xen_io.h"

static uint32_t model_load(const void *at);
static void model_store(void *at, uint32_t value, memory_order order);
static void model_fence(void);
static void model_copy(void *to, const void *from, size_t bytes);

#pragma push_macro("memcpy")
#pragma push_macro("atomic_load_explicit")
#pragma push_macro("atomic_store_explicit")
#pragma push_macro("atomic_thread_fence")
#undef memcpy
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_thread_fence
#define memcpy(to, from, bytes)                 model_copy(to, from, bytes)
#define atomic_load_explicit(at, order)         model_load((const void *)(at))
#define atomic_store_explicit(at, value, order) model_store((void *)(at), value, order)
#define atomic_thread_fence(order)              model_fence()
#include "ring/ring.h"
#pragma pop_macro("memcpy")
#pragma pop_macro("atomic_load_explicit")
#pragma pop_macro("atomic_store_explicit")
#pragma pop_macro("atomic_thread_fence")

enum { ENTRIES_MAX = 4, WORDS = 4 + ENTRIES_MAX, BUFFER_MAX = 8, STEPS_MAX = 4, SLOT_BYTES = 4 };
enum { FRONT, BACK };
enum op { PUT, PUSH, NOTIFY, LOOK, TAKE, ARM, SLEEP, DONE };
static const char *const op_names[] = {"put", "push", "notify", "look", "take", "arm", "sleep", "done"};

struct buffered {
    uint32_t value;
    uint16_t word; /* 0…3 the index words, then the slots */
    uint16_t release;
};

struct actor {
    union {
        struct ring_front front;
        struct ring_back back;
    } end;                    /* as it was when `op` began */
    uint32_t seen[STEPS_MAX]; /* what the steps of `op` that were done have loaded */
    struct buffered buffer[BUFFER_MAX];
    uint8_t op, steps, left, buffered; /* left: messages that look has counted and that are not taken yet */
};

struct state {
    struct actor actor[2];
    uint32_t memory[WORDS];
    uint32_t event[2]; /* the bit that the peer sets and the actor clears */
};

/* A part of the protocol that is left out, to see whether it was needed. */
enum fault_kind { NO_FAULT, NO_FENCE, NO_SECOND_LOOK, EVENT_TOO_EARLY, UNORDERED_PUBLISH };
struct fault {
    enum fault_kind kind;
    int actor;
    enum op op;
};

struct config {
    uint32_t start; /* of the indices */
    uint32_t entries, requests;
    bool batch; /* publish all that can be put, or each message alone */
    bool weak;
    bool bound; /* both event bits are set at the start, as binding does */
    struct fault fault;
};

/* ---- the modelled memory: called from within the code of ring.h ---- */

/* Gives addresses to the shared words, holds nothing. */
static _Alignas(8) unsigned char image[SRING_HEADER_BYTES + ENTRIES_MAX * SLOT_BYTES];

static size_t image_bytes(uint32_t entries)
{
    return SRING_HEADER_BYTES + entries * SLOT_BYTES;
}

static struct {
    const struct config *config;
    struct state *state; /* NULL: an end is being initialised, steps act at once on `memory` */
    uint32_t *memory;
    struct actor work; /* whose operation runs */
    int actor;
    unsigned at; /* the next step of the operation */
    bool moved;
    const char *wrong;
    jmp_buf stop;
} model;

static bool is_shared(const void *at)
{
    return (const unsigned char *)at >= image && (const unsigned char *)at < image + sizeof(image);
}

static unsigned word_of(const void *at)
{
    size_t offset = (size_t)((const unsigned char *)at - image);
    return (unsigned)(offset < SRING_HEADER_BYTES ? offset / 4 : 4 + (offset - SRING_HEADER_BYTES) / SLOT_BYTES);
}

static bool faulty(enum fault_kind kind)
{
    const struct fault *f = &model.config->fault;
    return f->kind == kind && f->actor == model.actor && f->op == model.work.op;
}

/* Has this step been done already? If not: it is the one of this transition, or the place to stop. */
static bool step_is_old(void)
{
    if (model.at < model.work.steps) {
        model.at++;
        return true;
    }
    if (model.moved)
        longjmp(model.stop, 1);
    return false;
}

static void step_done(uint32_t seen)
{
    assert(model.work.steps < STEPS_MAX);
    model.work.seen[model.work.steps++] = seen;
    model.at++;
    model.moved = true;
}

static uint32_t model_load(const void *at)
{
    unsigned word = word_of(at);
    if (step_is_old())
        return model.work.seen[model.at - 1];
    uint32_t value = model.state->memory[word];
    for (unsigned i = 0; i < model.work.buffered; i++) /* the latest comes last */
        if (model.work.buffer[i].word == word)
            value = model.work.buffer[i].value;
    step_done(value);
    return value;
}

static void model_store(void *at, uint32_t value, memory_order order)
{
    if (!model.state) {
        model.memory[word_of(at)] = value;
        return;
    }
    if (step_is_old())
        return;
    if (model.work.buffered == BUFFER_MAX)
        longjmp(model.stop, 1); /* waits for the buffer to drain */
    struct buffered *b = &model.work.buffer[model.work.buffered++];
    b->word = (uint16_t)word_of(at);
    b->value = value - (faulty(EVENT_TOO_EARLY) ? 1 : 0);
    b->release = order != memory_order_relaxed && !faulty(UNORDERED_PUBLISH);
    step_done(0);
}

static void model_fence(void)
{
    if (faulty(NO_FENCE) || step_is_old())
        return;
    if (model.work.buffered)
        longjmp(model.stop, 1);
    step_done(0);
}

static void model_copy(void *to, const void *from, size_t bytes)
{
    uint32_t value;
    assert(bytes == sizeof(value) && is_shared(to) != is_shared(from));
    if (is_shared(to)) {
        memcpy(&value, from, sizeof(value));
        model_store(to, value, memory_order_relaxed);
    } else {
        value = model_load(from);
        memcpy(to, &value, sizeof(value));
    }
}

/* Entry `i` of the actor's store buffer reaches memory. */
static bool move_drain(struct state *s, int actor, unsigned i)
{
    struct actor *a = &s->actor[actor];
    if (i >= a->buffered || (i && (!model.config->weak || a->buffer[i].release)))
        return false;
    for (unsigned j = 0; j < i; j++)
        if (a->buffer[j].word == a->buffer[i].word)
            return false;
    s->memory[a->buffer[i].word] = a->buffer[i].value;
    a->buffered--;
    memmove(&a->buffer[i], &a->buffer[i + 1], (a->buffered - i) * sizeof(a->buffer[0]));
    memset(&a->buffer[a->buffered], 0, sizeof(a->buffer[0]));
    return true;
}

#endif
