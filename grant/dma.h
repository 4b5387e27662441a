/* SPDX-License-Identifier: MIT */
/* grant/dma.h: how a request's pages reach the storage: the table of DMA strategies.
 *
 * A strategy turns the segments of one request into an I/O vector (get) and settles it when the I/O is done (put). It
 * is chosen per device by name, `pin` by default. Rows: dma_list.h; one row is one file grant/dma_<name>.c; the
 * conformance test iterates the table.
 *
 *   copy   data through a bounce buffer that the guest cannot reach; nothing of the guest's is held during the I/O
 *   pin    the guest's own pages, mapped and pinned from get to put, as one registered buffer for each extent where the
 *          kernel allows it
 *   validate  the guest's own pages, checked in get by all the rules of their grants, and then used with nothing held:
 *          the textbook's gap between check and use, kept on purpose. `unsafe`: only for disks that ask for it by name
 *   iommu  the guest's own pages by bus address, through an IOTLB that checks each use (iommu.h); for a frontend that
 *          knows of none through its grants, mapped and unmapped for each request
 *
 * A vector names memory by address and, where it lies in a buffer that was registered with the ring, its index, so the
 * engine can use fixed-buffer operations. Adjacent segments that are adjacent in memory are merged.
 *
 * get() and put() allocate nothing: `struct dma_io` and the arrays behind it hold all they need and live as long as the
 * request. There are two sizes, so that a request of what fits a ring slot does not carry the books of 256 pages: up to
 * DMA_SEGMENTS_SMALL segments, or up to DMA_SEGMENTS_MAX, of which only `large_max` may be outstanding. Between get and
 * put the guest may write, revoke or free its pages at will; what that can do is the difference between the rows:
 *
 *                                    copy                                       pin
 *   writes data that is written out  not seen: it was copied in get             the disk may get either, or a mix
 *   ends the grant                   a read fails in put, a write is done       the end is refused until put
 *   takes back the memory, or dies   a read fails in put, a write is done       goes on; the memory goes after put
 *   points the entry elsewhere       the read goes there: to the guest's own    changes nothing
 *
 *                                    validate
 *   writes data that is written out  the disk may get either, or a mix
 *   ends the grant                   succeeds; the I/O goes on, into memory that is the guest's to use for anything
 *   takes back the memory, or dies   the memory goes at once; the I/O fails, or reaches whichever guest has its place
 *                                    by then: that one's data is read or overwritten
 *   points the entry elsewhere       changes nothing
 *
 * `iommu` is as pin here; with bus pages it is the unmap that waits for put, and the grant ends after that.
 *
 * A grant that a keep holds (gntkeep.h) is mapped already, so for `copy` and `validate` too its end is refused and an
 * entry that is pointed elsewhere changes nothing; memory that is taken back still fails a copy's read, and goes when
 * the keep lets go.
 *
 * But for `unsafe` rows nothing is reached that the guest does not share with this domain; and they reach other guests'
 * memory, never this process's own: who touches a vector's memory here goes by dma_reach(). One thread an instance.
 *
 * Two rows more are there for measuring, where DMA_BENCH_ROWS is defined (`make bench-rows`): `none`, which checks
 * nothing, and `pin-each`, which has the kernel pin and unpin each request's memory.
 */
#ifndef GRANT_DMA_H
#define GRANT_DMA_H

#include <string.h>

#include "base/err.h"
#include "grant/gntkeep.h"
#include "grant/iommu.h"

#define DMA_SEGMENTS_SMALL 11  /* of a request whose segments fit a ring slot */
#define DMA_SEGMENTS_MAX   256 /* of an indirect one: 1 MiB */

struct dma_segment {
    uint32_t gref;                       /* or, where the setup has a space, a bus page */
    uint16_t offset_bytes, length_bytes; /* within the page; already checked */
};

struct dma_vec {
    unsigned char *address;
    uint32_t length_bytes;
    int32_t buffer_index; /* of the registered buffer that holds it, -1: none */
};

struct dma_io {
    struct dma_vec *vec;
    unsigned vec_count;
    unsigned segments_max; /* the arrays hold so many of each */
    /* the strategy's own */
    bool to_guest; /* the I/O writes guest memory: a read from disk */
    unsigned segment_count;
    struct dma_segment *segment; /* those of get(), which may be passed in here */
    uint32_t slot;               /* copy: which bounce slot; iommu: the first bus page, where segments are grants */
};

/* Bytes of the arrays of a dma_io for so many segments. */
#define DMA_IO_BYTES(segments_max) ((segments_max) * (sizeof(struct dma_vec) + sizeof(struct dma_segment)))
/* Borrows `arrays`, DMA_IO_BYTES(segments_max) aligned as a pointer. */
void dma_io_init(struct dma_io *io, void *arrays, unsigned segments_max);
/* For the rows: keeps what get() was given until put(). Mostly it stands there already, written field by field just
 * now, and must not be read as a whole then: such a load waits until all of these stores are done (5 ns a request). */
static inline void dma_io_keep(struct dma_io *io, const struct dma_segment *segments, unsigned count)
{
    if (segments != io->segment)
        memcpy(io->segment, segments, count * sizeof(*segments));
}

/* What the strategy needs from who does the I/O. Devices of one domain share a frame table and with it the registered
 * buffers of its extents, so all devices over one frame table name one and the same dma_host, which outlives them. */
struct dma_host {
    void *ctx;
    /* Registers memory with the ring, on account of that guest: its buffer index, or -errno (then plain vectors are
     * used); -EBUSY: not now, -EDQUOT: the guest has its share: ask again at the next use. */
    int32_t (*buffer_register)(void *ctx, uint16_t domid, void *address, size_t length_bytes);
    void (*buffer_unregister)(void *ctx, int32_t index);
};

struct dma_setup {
    struct gntmap *map;          /* borrowed */
    struct gntkeep *keep;        /* borrowed; NULL: nothing stays mapped between requests */
    struct frametable *frames;   /* borrowed */
    const struct dma_host *host; /* borrowed */
    unsigned requests_max;       /* gets of up to DMA_SEGMENTS_SMALL segments that may be outstanding */
    unsigned large_max;          /* and of more */
    /* iommu; the others do not look at these. Borrowed. */
    struct iommu *iommu;       /* NULL: one of its own */
    uint32_t device;           /* by which faults name it */
    struct iommu_space *space; /* the device's: segments name bus pages of it; NULL: they name grants */
};

struct dma; /* one device's instance of a strategy */

struct dma_stats {
    uint64_t bytes_copied, maps; /* maps: pages mapped, for a copy too */
    uint64_t registered_bytes;   /* now; pin: of the domain's extents, whichever of its devices had them registered */
    uint64_t over_share;         /* uses of memory that was not registered since the guest had its share */
    uint64_t iotlb_hits, iotlb_misses;
    uint64_t iommu_maps, iommu_unmaps; /* pages, where segments are grants */
    uint64_t iommu_faults[IOMMU_F_COUNT_];
    bool fixed_buffers; /* false: the kernel refused a registration and plain vectors serve there */
};

struct dma_strategy {
    const char *name;
    const char *summary;    /* one line, for listings */
    bool unsafe;            /* the memory of a vector may go, or become another guest's, between get and put */
    bool registers_extents; /* what it registers is the domain's, common to all devices over one frame table */
    /* 0 or -ENOMEM, with a sentence. */
    int (*setup)(const struct dma_setup *setup, struct dma **out, struct err *e);
    /* 1 … io->segments_max segments. 0, GRANT_E_* or -errno; on failure nothing is held. */
    int (*get)(struct dma *d, const struct dma_segment *segments, unsigned count, bool to_guest, struct dma_io *io);
    /* `ok`: all of the I/O succeeded (a failed read need not reach the guest). 0, or GRANT_E_* or -errno where data
     * could not be delivered: the request fails. Releases all in either case. */
    int (*put)(struct dma *d, struct dma_io *io, bool ok);
    void (*teardown)(struct dma *d); /* nothing is outstanding */
    void (*describe)(const struct dma *d, struct dma_stats *out);
    /* Nothing is outstanding, and was not for long: gives memory back that the next request brings again. May be NULL.
     */
    void (*rest)(struct dma *d);
    /* To be called now and then by a thread that is about to wait: others may wait for this device. May be NULL. */
    void (*turn)(struct dma *d);
};

#define DMA_STRATEGY(name) extern const struct dma_strategy dma_##name;
#include "grant/dma_list.h"
#undef DMA_STRATEGY

extern const struct dma_strategy *const dma_strategies[];
extern const unsigned dma_strategy_count;
/* Of an instance of dma_iommu. */
struct iotlb *dma_iommu_tlb(struct dma *d);
/* The row of that name; NULL where there is none. "pin" is DMA_DEFAULT. */
const struct dma_strategy *dma_strategy_find(const char *name);
#define DMA_DEFAULT "pin"

/* Between memory of our own and a vector's of that row, after get: 0, or -EFAULT where an unsafe row's memory is gone.
 * `local` NULL: zeroes for the guest. */
int dma_reach(const struct dma_strategy *row, void *guest, void *local, size_t bytes, bool to_guest);

#endif
