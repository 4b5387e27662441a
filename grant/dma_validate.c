/* SPDX-License-Identifier: MIT */
/* grant/dma_validate.c: a check at request time, then the guest's own pages with nothing held: the textbook's way, with
 * the textbook's hole. For showing what it costs and what it lets happen; served only where a disk asks for it by name.
 *
 * In get each page is mapped by all the rules of its grant and unmapped again: owner, grantee, access and range are as
 * `pin` has them, at that moment. What is left is the vector's address. Between the check and the transfer the guest
 * may end the grant and give the memory back; whoever is given that place next has its data read, or overwritten. The
 * two things that a guest's memory can turn into here are another guest's memory and nothing (platform/user_space.h),
 * so the damage is done to guests: the kernel refuses a transfer to nothing with EFAULT, and dom0 itself goes to such
 * memory through the kernel only (dma_reach()).
 *
 * Extents are registered with the ring as those of `pin` are (dma_extent.h). A registered buffer is what the kernel
 * holds, for as long as the extent is known here; a transfer that the kernel has begun on one ends on those pages.
 */
#include <assert.h>

#include "base/span.h"
#include "grant/dma_extent.h"

struct dma {
    struct dma_extents x;
};

static int validate_get(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest,
                        struct dma_io *io)
{
    assert(count > 0 && count <= io->segments_max);
    io->to_guest = to_guest;
    io->vec_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct dma_segment *s = &segments[i];
        struct active_entry *a;
        assert(span_fits(s->offset_bytes, s->length_bytes, PAGE_BYTES));
        int r = active_map(d->x.map, d->x.keep, s->gref, to_guest, &a);
        if (r)
            return r;
        dma_io_append(io, a->address + s->offset_bytes, s->length_bytes, dma_extent_buffer(&d->x, a->extent));
        active_unmap(d->x.map, s->gref, to_guest);
    }
    io->segment_count = count;
    d->x.maps += count;
    return 0;
}

/* Nothing was held. */
static int validate_put(struct dma *d, struct dma_io *io, bool ok)
{
    (void)d, (void)ok;
    io->segment_count = 0;
    return 0;
}

const struct dma_strategy dma_validate = {
    .name = "validate",
    .summary = "the guest's pages, checked when the request begins and not held: UNSAFE, to show what that lets happen",
    .unsafe = true,
    .registers_extents = true,
    .setup = dma_extents_setup,
    .get = validate_get,
    .put = validate_put,
    .teardown = dma_extents_teardown,
    .describe = dma_extents_describe,
};
