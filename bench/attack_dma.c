/* SPDX-License-Identifier: MIT */
/* bench/attack_dma.c: the attacks of bench/attack/ against the strategies of grant/dma_list.h: for bench/attack.py,
 * which makes the table of it.
 *
 *   attack_dma list                              {"strategies": [...], "attacks": [{"name": …, "text": …}, …]}
 *   attack_dma STRATEGY ATTACK ATTEMPTS SEED     one line, a row of the table
 */
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "bench/attack/table.h"

static void string_print(const char *s)
{
    putchar('"');
    for (; *s; s++)
        printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    putchar('"');
}

static int list_print(void)
{
    printf("{\"strategies\": [");
    for (unsigned i = 0; i < dma_strategy_count; i++)
        printf("%s\"%s\"", i ? ", " : "", dma_strategies[i]->name);
    printf("], \"attacks\": [");
    for (unsigned i = 0; i < attack_count; i++) {
        printf("%s{\"name\": ", i ? ", " : "");
        string_print(attacks[i]->name);
        printf(", \"text\": ");
        string_print(attacks[i]->text);
        putchar('}');
    }
    printf("]}\n");
    return 0;
}

static void sample_print(const char *name, const unsigned char *bytes)
{
    printf(", \"%s\": \"", name);
    for (unsigned i = 0; i < DOMAIN_SAMPLE; i++)
        printf("%s%02x", i ? " " : "", bytes[i]);
    putchar('"');
}

static void ways_print(const char *name, const struct table_ways *ways)
{
    printf(", \"%s\": {", name);
    for (unsigned i = 0; i < ways->count; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", ways->way[i].how, (unsigned long long)ways->way[i].count);
    putchar('}');
}

static void row_print(const struct table_row *row)
{
    printf("{\"strategy\": \"%s\", \"attack\": \"%s\", \"attempts\": %llu, \"successes\": %llu, \"seed\": %llu",
           row->strategy, row->attack->name, (unsigned long long)row->attempts, (unsigned long long)row->successes,
           (unsigned long long)row->seed);
    ways_print("stopped", &row->stopped);
    ways_print("won", &row->won);
    printf(", \"note\": ");
    string_print(row->spared ? row->spared : "");
    if (row->damage.frames) {
        printf(", \"damage\": {\"frame\": %u, \"offset\": %u", row->damage.frame, row->damage.offset);
        sample_print("before", row->damage.before);
        sample_print("after", row->damage.after);
        putchar('}');
    }
    printf("}\n");
}

static const struct attack *attack_find(const char *name)
{
    for (unsigned i = 0; i < attack_count; i++)
        if (strcmp(attacks[i]->name, name) == 0)
            return attacks[i];
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return list_print();
    struct table_options o = {0};
    const struct dma_strategy *dma = argc == 5 ? dma_strategy_find(argv[1]) : NULL;
    const struct attack *attack = argc == 5 ? attack_find(argv[2]) : NULL;
    if (!dma || !attack || parse_u64(argv[3], 1, UINT32_MAX, &o.attempts) ||
        parse_u64(argv[4], 0, UINT64_MAX, &o.seed)) {
        fprintf(stderr, "usage: %s list | STRATEGY ATTACK ATTEMPTS SEED\n", argv[0]);
        return 2;
    }
    struct table_row row;
    struct err e = {0};
    if (table_fight(&(struct dom0_rules){.name = dma->name, .dma = dma, .iommu = dma == &dma_iommu}, attack, &o, &row,
                    &e)) {
        fprintf(stderr, "attack_dma: %s\n", e.text);
        return 1;
    }
    row_print(&row);
    return 0;
}
