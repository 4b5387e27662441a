/* SPDX-License-Identifier: MIT */
/* tests/mutants/blkalign_late.c: backend/blk/blkalign.c as it is, and, while mutant_writes_late is set, with one
 * change: what is written is not the copy of which the checksum was made, but the guest's page as it is by then. It
 * stands in for the library's own. */
#include <liburing.h>

#include "tests/mutants/mutants.h"

bool mutant_writes_late;

#define io_uring_prep_write(sqe, fd, memory, bytes, at)                                                            \
    (io_uring_prep_write)(                                                                                         \
        sqe, fd, mutant_writes_late && s->request->dma.vec_count == 1 ? s->request->dma.vec[0].address : (memory), \
        bytes, at)
#include "backend/blk/blkalign.c"
