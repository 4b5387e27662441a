/* SPDX-License-Identifier: MIT */
#include "bench/attack/table.h"

#include <assert.h>
#include <string.h>

const struct attack *const attacks[] = {
#define ATTACK(name) &attack_##name,
#include "bench/attack/attack_list.h"
#undef ATTACK
};

const unsigned attack_count = ARRAY_SIZE(attacks);

static void ways_count(struct table_ways *ways, const char *how)
{
    unsigned i = 0;
    while (i < ways->count && strcmp(ways->way[i].how, how) != 0)
        i++;
    assert(i < TABLE_WAYS_MAX);
    if (i == ways->count)
        ways->way[ways->count++].how = how;
    ways->way[i].count++;
}

static void row_add(struct table_row *row, const struct outcome *o)
{
    row->attempts++;
    if (!o->won) {
        ways_count(&row->stopped, o->how);
        return;
    }
    if (!row->damage.frames)
        row->damage = o->damage;
    row->successes++;
    ways_count(&row->won, o->won);
}

/* An IOMMU is tried in its three forms, in turn. */
static unsigned rules_variant(const struct dom0_rules *rules, const struct attack *attack, unsigned which,
                              struct dom0_rules *out)
{
    *out = *rules;
    out->sealed = attack->sealed;
    if (!rules->iommu)
        return 1;
    out->bus = which < 2;
    out->deferred = which == 1;
    return 3;
}

static int variant_fight(const struct dom0_rules *rules, const struct attack *attack,
                         const struct table_options *options, uint64_t attempts, struct table_row *out, struct err *e)
{
    struct scene *s = malloc(sizeof(*s));
    int r = s ? scene_open(s, rules, options->seed, e) : err_set(e, -ENOMEM, "out of memory");
    if (!r) {
        s->stepped_only = options->stepped_only;
        while (attempts-- > 0) {
            struct outcome o;
            attack->attempt(s, &o);
            row_add(out, &o);
        }
        scene_close(s);
    }
    free(s);
    return r;
}

int table_fight(const struct dom0_rules *rules, const struct attack *attack, const struct table_options *options,
                struct table_row *out, struct err *e)
{
    struct dom0_rules variant[3];
    unsigned fit = 0, n = 1;
    *out = (struct table_row){.strategy = rules->name, .attack = attack, .seed = options->seed};
    for (unsigned i = 0; i < n; i++) {
        n = rules_variant(rules, attack, i, &variant[fit]);
        const char *spared = attack->spared ? attack->spared(&variant[fit]) : NULL;
        if (spared && !out->spared)
            out->spared = spared;
        fit += !spared;
    }
    if (fit)
        out->spared = NULL;
    for (unsigned i = 0; i < fit; i++) {
        int r = variant_fight(&variant[i], attack, options, options->attempts * (i + 1) / fit - out->attempts, out, e);
        if (r)
            return r;
    }
    return 0;
}
