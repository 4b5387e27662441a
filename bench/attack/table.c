/* SPDX-License-Identifier: MIT */
#include "bench/attack/table.h"

#include <assert.h>

const struct attack *const attacks[] = {
#define ATTACK(name) &attack_##name,
#include "bench/attack/attack_list.h"
#undef ATTACK
};

const unsigned attack_count = ARRAY_SIZE(attacks);

static void row_count(struct table_row *row, const char *how)
{
    unsigned i = 0;
    while (i < row->ways && row->way[i].how != how)
        i++;
    assert(i < TABLE_WAYS_MAX);
    if (i == row->ways)
        row->way[row->ways++].how = how;
    row->way[i].count++;
}

static void row_add(struct table_row *row, const struct outcome *o)
{
    row->attempts++;
    if (!o->success) {
        row_count(row, o->how);
        return;
    }
    if (!row->damage.frames)
        row->damage = o->damage;
    row->successes++;
}

int table_fight(const struct dom0_rules *rules, const struct attack *attack, const struct table_options *options,
                struct table_row *out, struct err *e)
{
    *out = (struct table_row){.strategy = rules->name, .attack = attack, .seed = options->seed};
    out->spared = attack->spared ? attack->spared(rules) : NULL;
    if (out->spared)
        return 0;
    struct scene *s = malloc(sizeof(*s));
    int r = s ? scene_open(s, rules, options->seed, e) : err_set(e, -ENOMEM, "out of memory");
    if (!r) {
        s->stepped_only = options->stepped_only;
        while (out->attempts < options->attempts) {
            struct outcome o;
            attack->attempt(s, &o);
            row_add(out, &o);
        }
        scene_close(s);
    }
    free(s);
    return r;
}
