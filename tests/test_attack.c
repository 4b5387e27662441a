/* SPDX-License-Identifier: MIT */
/* The attack bench sees what it is there to see: every attack against every strategy of the table, of which only
 * `validate` may lose, and does; and the same attacks against mutants, each of which must lose. All attempts are
 * stepped: windows are open because the bench holds them open, and nothing depends on time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bench/attack/table.h"
#include "bench/attack/trap.h"
#include "tests/mutants/mutants.h"
#include "tests/tool.h"

#define ATTEMPTS 200
#define SEED     7

static bool needs_trap(const struct attack *a)
{
    return a == &attack_rewrite_request || a == &attack_rewrite_indirect;
}

static struct table_row fight(const struct dom0_rules *rules, const struct attack *attack)
{
    const struct table_options o = {.attempts = ATTEMPTS, .seed = SEED, .stepped_only = true};
    static struct table_row row;
    struct err e;
    if (table_fight(rules, attack, &o, &row, &e))
        fail_msg("%s", e.text);
    return row;
}

static void test_no_strategy_but_validate_loses_anything(void **state)
{
    (void)state;
    for (unsigned s = 0; s < dma_strategy_count; s++)
        for (unsigned a = 0; a < attack_count; a++) {
            const struct dma_strategy *dma = dma_strategies[s];
            struct table_row row =
                fight(&(struct dom0_rules){.name = dma->name, .dma = dma, .iommu = dma == &dma_iommu}, attacks[a]);
            if (row.spared)
                continue;
            assert_int_equal(row.attempts, ATTEMPTS);
            if (!dma->unsafe && row.successes)
                fail_msg("%s lost %u of %u to '%s'", dma->name, (unsigned)row.successes, ATTEMPTS, attacks[a]->name);
        }
}

static void test_validate_loses_the_victims_canary(void **state)
{
    (void)state;
    const struct attack *const lost[] = {&attack_revoke_reuse, &attack_reallocate};
    for (unsigned i = 0; i < ARRAY_SIZE(lost); i++) {
        struct table_row row = fight(&(struct dom0_rules){.name = "validate", .dma = &dma_validate}, lost[i]);
        assert_true(row.successes > 0);
        assert_true(row.damage.frames > 0);
        for (unsigned at = 0; at < DOMAIN_SAMPLE; at++) {
            assert_true(row.damage.before[at] >= BYTE_CANARY);
            assert_int_equal(row.damage.after[at], BYTE_DEVICE);
        }
    }
}

static const struct {
    struct dom0_rules rules;
    const struct attack *attack;
    bool *flag;
} mutants[] = {
    {{.name = "pin without the pin", .dma = &mutant_pin_unpinned}, &attack_revoke_reuse, NULL},
    {{.name = "pin without the pin", .dma = &mutant_pin_unpinned}, &attack_reallocate, NULL},
    {{.name = "no deferral", .dma = &dma_pin, .revoke = mutant_revoke_at_once}, &attack_reallocate, NULL},
    {{.name = "copy without the copy", .dma = &mutant_copy_uncopied}, &attack_reallocate, NULL},
    {{.name = "iommu without the wait", .dma = &mutant_iommu_unwaited, .iommu = true}, &attack_unmap_dma, NULL},
    {{.name = "iommu without the invalidation", .dma = &mutant_iommu_stale, .iommu = true}, &attack_stale_iotlb, NULL},
    {{.name = "request read twice", .dma = &dma_pin, .take = mutant_take_twice}, &attack_rewrite_request, NULL},
    {{.name = "segments read twice", .dma = &dma_copy, .take = mutant_take_twice}, &attack_rewrite_indirect, NULL},
    {{.name = "stable data that are not", .dma = &dma_pin}, &attack_checksum, &mutant_writes_late},
};

static void test_the_table_shows_each_mutant(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(mutants); i++) {
        if (needs_trap(mutants[i].attack) && !trap_works())
            continue;
        if (mutants[i].flag)
            *mutants[i].flag = true;
        struct table_row row = fight(&mutants[i].rules, mutants[i].attack);
        if (mutants[i].flag)
            *mutants[i].flag = false;
        print_message("%s: %u of %u by '%s'\n", mutants[i].rules.name, (unsigned)row.successes, ATTEMPTS,
                      mutants[i].attack->name);
        if (!row.successes)
            fail_msg("'%s' went unseen by '%s'", mutants[i].rules.name, mutants[i].attack->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_strategy_but_validate_loses_anything),
        cmocka_unit_test(test_validate_loses_the_victims_canary),
        cmocka_unit_test(test_the_table_shows_each_mutant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
