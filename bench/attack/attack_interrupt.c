/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_interrupt.c: a device of the attacker's that raises interrupts which are not its own.
 *
 * The device writes any handle and any vector; which device it is it cannot choose. Its own block of vectors lies
 * beside the victim's, and moves to the victim while the device goes on to use what it knows. */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bench/attack/attack.h"
#include "grant/intremap.h"

#define TABLE_ENTRIES 64u
#define VECTORS       4u
#define RAISES_LATE   200u /* of a device that raises while its block moves */

struct port {
    uint16_t domid;
    atomic_uint raised;
};

struct board {
    struct intremap *table;
    struct port port[2]; /* the attacker's, the victim's */
    uint32_t handle[2];
    uint64_t random;
    unsigned refused;
};

static const struct intremap_source sources[2] = {
    {.device = DOM0_DEVICE_ATTACKER, .domid = DOMAIN_ATTACKER},
    {.device = DOM0_DEVICE_VICTIM, .domid = DOMAIN_VICTIM},
};

static const char *interrupt_spared(const struct dom0_rules *rules)
{
    return rules->iommu ? NULL : "no device raises by number: dom0 notifies the one channel that is bound";
}

static void block_give(struct board *b, unsigned whose)
{
    int r = intremap_alloc(b->table, &sources[whose], VECTORS, &b->handle[whose]);
    for (uint32_t v = 0; v < VECTORS && !r; v++) {
        const struct intremap_target target = {
            .domid = sources[whose].domid, .port = 1 + v, .vector = v, .owner = &b->port[whose]};
        r = intremap_assign(b->table, b->handle[whose], v, &target);
    }
    assert(r == 0);
}

static uint32_t board_random(struct board *b, uint32_t below)
{
    b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(b->random >> 33) % below;
}

/* The attacker's device raises something. */
static void device_raise(struct board *b, uint32_t handle, uint32_t vector)
{
    const struct intremap_target *t = intremap_begin(b->table, &sources[0], handle, vector);
    b->refused += !t;
    if (!t)
        return;
    atomic_fetch_add(&((struct port *)t->owner)->raised, 1);
    intremap_end(b->table, t);
}

static void device_raise_any(struct board *b)
{
    uint32_t handle = board_random(b, 8) ? board_random(b, TABLE_ENTRIES) : UINT32_MAX - board_random(b, VECTORS);
    uint32_t vector = board_random(b, 8) ? board_random(b, 2 * VECTORS) : UINT32_MAX - board_random(b, TABLE_ENTRIES);
    device_raise(b, handle, vector);
}

static void *device_main(void *arg)
{
    for (unsigned i = 0; i < RAISES_LATE; i++)
        device_raise_any(arg);
    return NULL;
}

/* The attacker's block goes to the victim's device: what the attacker knows of it is the victim's now. */
static void block_move(struct board *b)
{
    intremap_release(b->table, b->handle[0]);
    block_give(b, 1);
}

static void board_attack(struct scene *s, struct board *b)
{
    pthread_t device;
    if (!s->stepped_only && scene_random(s, 8) == 0 && !pthread_create(&device, NULL, device_main, b)) {
        block_move(b);
        pthread_join(device, NULL);
        return;
    }
    device_raise(b, b->handle[1], scene_random(s, VECTORS));
    device_raise_any(b);
    const uint32_t known = b->handle[0];
    block_move(b);
    device_raise(b, known, scene_random(s, VECTORS));
}

static void foreign_interrupt_attempt(struct scene *s, struct outcome *out)
{
    struct board b = {.port = {{.domid = DOMAIN_ATTACKER}, {.domid = DOMAIN_VICTIM}},
                      .random = scene_random(s, 1u << 30)};
    int r = intremap_new(s->dom0.unit, TABLE_ENTRIES, &b.table);
    assert(r == 0);
    block_give(&b, 1);
    const uint32_t victims = b.handle[1];
    block_give(&b, 0);
    board_attack(s, &b);
    intremap_release(b.table, b.handle[1]);
    intremap_release(b.table, victims);
    intremap_free(b.table);
    *out = (struct outcome){.won = atomic_load(&b.port[1].raised) ? "interrupt" : NULL,
                            .how = b.refused ? "fault: interrupt" : "no effect"};
}

const struct attack attack_foreign_interrupt = {
    .name = "foreign interrupt",
    .text = "The attacker's device raises the victim's vector, vectors of nobody, and one of its own block after that "
            "went to the victim's device.",
    .spared = interrupt_spared,
    .attempt = foreign_interrupt_attempt,
};
