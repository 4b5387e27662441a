/* SPDX-License-Identifier: MIT */
/* libFuzzer's way into the targets of fuzz_store.h: FUZZ_TARGET names one. Linked by `make fuzz`, with libFuzzer's
 * main; otherwise this program runs the target over the files that it is given, so that a find can be looked at with
 * gdb. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/fuzz_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct fuzz_target *target;
    const char *name = getenv("FUZZ_TARGET");
    for (unsigned i = 0; i < fuzz_target_count && !target; i++)
        if (name && !strcmp(name, fuzz_targets[i].name))
            target = &fuzz_targets[i];
    fuzz_expect(target != NULL, "FUZZ_TARGET names none of wire, record, state");
    log_setup("fuzz", LOG_ERROR);
    target->run(bytes, length);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
int main(int argc, char **argv)
{
    static uint8_t bytes[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            perror(argv[i]);
            return 1;
        }
        LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof(bytes), f));
        fclose(f);
    }
    return 0;
}
#endif
