/* SPDX-License-Identifier: MIT */
/* The targets of fuzz_store.h over the inputs of tests/corpus, which libFuzzer found to reach what they can reach, and
 * over as many random changes of them: what is true of one input must be true of all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "tests/fuzz_store.h"
#include "tests/random.h"

#define INPUT_BYTES 4096
#define INPUTS_MAX  2048

struct sample {
    size_t length;
    uint8_t bytes[INPUT_BYTES];
};

static struct sample samples[INPUTS_MAX];

static unsigned samples_load(const char *target)
{
    const char *source = getenv("DOMZERO_SOURCE");
    char dir[4096], path[4400];
    unsigned count = 0;
    const struct dirent *entry;
    snprintf(dir, sizeof(dir), "%s/tests/corpus/%s", source ? source : ".", target);
    DIR *d = opendir(dir);
    assert_non_null(d);
    while ((entry = readdir(d)) != NULL && count < INPUTS_MAX) {
        snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        FILE *f = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!f)
            continue;
        samples[count].length = fread(samples[count].bytes, 1, INPUT_BYTES, f);
        fclose(f);
        count++;
    }
    closedir(d);
    return count;
}

/* Some bytes are others; or the beginning of one sample has the end of another behind it. */
static size_t mutate(uint8_t *out, const struct sample *a, const struct sample *b, uint64_t *seed)
{
    size_t length = a->length;
    memcpy(out, a->bytes, length);
    if (random_next(seed) % 2 && a->length && b->length) {
        size_t cut = random_next(seed) % a->length, from = random_next(seed) % b->length;
        length = MIN(cut + b->length - from, (size_t)INPUT_BYTES);
        memcpy(out + cut, b->bytes + from, length - cut);
    }
    for (unsigned n = random_next(seed) % 4; n && length; n--)
        out[random_next(seed) % length] = (uint8_t)random_next(seed);
    return length;
}

static void run_target(const char *name)
{
    static uint8_t changed[INPUT_BYTES];
    const struct fuzz_target *t = fuzz_targets;
    uint64_t seed = 1;
    while (strcmp(t->name, name))
        t++;
    unsigned count = samples_load(name);
    assert_true(count > 20);
    for (unsigned i = 0; i < count; i++)
        t->run(samples[i].bytes, samples[i].length);
    for (unsigned i = 0; i < 2 * count; i++) {
        const struct sample *a = &samples[random_next(&seed) % count], *b = &samples[random_next(&seed) % count];
        size_t length = mutate(changed, a, b, &seed);
        t->run(changed, length);
    }
}

static void test_whatever_connections_and_a_ring_bring_the_store_agrees_with_itself(void **state)
{
    (void)state;
    run_target("wire");
}

static void test_a_record_of_any_bytes_leaves_a_store_that_can_be_written_down_and_read_again(void **state)
{
    (void)state;
    run_target("record");
}

static void test_a_state_of_any_bytes_is_refused_or_can_be_handed_on(void **state)
{
    (void)state;
    run_target("state");
}

int main(void)
{
    log_setup("fuzz", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whatever_connections_and_a_ring_bring_the_store_agrees_with_itself),
        cmocka_unit_test(test_a_record_of_any_bytes_leaves_a_store_that_can_be_written_down_and_read_again),
        cmocka_unit_test(test_a_state_of_any_bytes_is_refused_or_can_be_handed_on),
    };
    return cmocka_run_group_tests_name("store_fuzz", tests, NULL, NULL);
}
