/* SPDX-License-Identifier: MIT */
/* bench/attack/table.h: attacks against strategies: how often each was tried, how often it succeeded, and what stood in
 * its way. */
#ifndef ATTACK_TABLE_H
#define ATTACK_TABLE_H

#include "bench/attack/attack.h"

#define TABLE_WAYS_MAX 24

struct table_way {
    const char *how;
    uint64_t count;
};

struct table_ways {
    struct table_way way[TABLE_WAYS_MAX];
    unsigned count;
};

struct table_row {
    const char *strategy;
    const struct attack *attack;
    const char *spared; /* why it does not apply; NULL: it was tried */
    uint64_t attempts, successes, seed;
    struct table_ways stopped, won; /* by what; and what the successes got at */
    struct machine_damage damage;   /* of the first success that left any */
};

struct table_options {
    uint64_t attempts, seed;
    bool stepped_only; /* attack.h: struct scene */
};

extern const struct attack *const attacks[];
extern const unsigned attack_count;

/* Tries one attack against one set of rules. 0 or -errno with a sentence. */
int table_fight(const struct dom0_rules *rules, const struct attack *attack, const struct table_options *options,
                struct table_row *out, struct err *e);

#endif
