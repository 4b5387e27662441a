/* SPDX-License-Identifier: MIT */
/* tests/dma_world.h: a device over a DMA strategy. The device is the test itself: it reads and writes through the
 * vectors as an engine would. The ring's registration is a small host that keeps books, so a vector that names a buffer
 * can be held against what was registered, and memory that goes while it is registered is noticed.
 */
#ifndef TESTS_DMA_WORLD_H
#define TESTS_DMA_WORLD_H

#include "grant/dma.h"
#include "tests/grant_world.h"

#define GFN          0x100 /* sixteen frames in one extent */
#define GFN_FAR      0x800 /* two more, in another */
#define GFN_RO       0x900 /* two, shared for reading */
#define REQUESTS_MAX 4
#define LARGE_MAX    2
#define BUFFERS_MAX  32
#define KEEP_PAGES   5 /* fewer than there are frames: what is kept gives way */

struct dma_buffer {
    unsigned char *address; /* NULL: free */
    size_t length_bytes;
};

struct dma_world {
    struct grant_world world;
    struct dma_buffer buffer[BUFFERS_MAX];
    unsigned registrations, in_force;
    int refuse; /* -errno */
    struct dma_host host;
    const struct dma_strategy *row;
    struct gntkeep *keep; /* or NULL */
    uint64_t now_s;       /* its clock */
    struct dma *dma;
};

/* A dma_io with its arrays, as a local. */
#define DMA_IO(name)                                                          \
    _Alignas(16) unsigned char name##_arrays[DMA_IO_BYTES(DMA_SEGMENTS_MAX)]; \
    struct dma_io name;                                                       \
    dma_io_init(&name, name##_arrays, DMA_SEGMENTS_MAX)
/* And several of them. */
#define DMA_IOS(name, count)                                                         \
    _Alignas(16) unsigned char name##_arrays[count][DMA_IO_BYTES(DMA_SEGMENTS_MAX)]; \
    struct dma_io name[count];                                                       \
    for (unsigned name##_i = 0; name##_i < (count); name##_i++)                      \
    dma_io_init(&name[name##_i], name##_arrays[name##_i], DMA_SEGMENTS_MAX)

/* Whether the worlds to come keep grants mapped between requests. */
extern bool dma_world_keeps;

/* Each row, without and with grants that stay mapped. */
#define FOREACH_ROW(row)                                                                               \
    for (unsigned row_i_ = 0; dma_world_keeps = row_i_ % 2, row_i_ < 2 * dma_strategy_count; row_i_++) \
        for (const struct dma_strategy *row = dma_strategies[row_i_ / 2]; row; row = NULL)

/* `refuse`: what the host answers to registrations; 0: it registers. */
struct dma_world *dma_world_new(const struct dma_strategy *row, int refuse);
void dma_world_free(struct dma_world *f); /* asserts that nothing is mapped or registered */
/* What is kept is given back, for time has passed. */
void dma_world_expire(struct dma_world *f);
/* Pages that requests have mapped. */
uint32_t dma_world_mapped(const struct dma_world *f);
/* One more device of the same row. */
struct dma *dma_world_device(struct dma_world *f);

/* The vector has that many bytes, all within what it says they lie in. */
void dma_device_checks(struct dma_world *f, const struct dma_io *io, uint32_t expected_bytes);
void dma_device_fills(const struct dma_io *io, unsigned char seed);
void dma_device_expects(const struct dma_io *io, unsigned char seed);
/* A request that may go wrong somewhere: its code, whether get or put said so. */
int dma_device_request(struct dma_world *f, const struct dma_segment *s, unsigned count, bool to_guest);

#endif
