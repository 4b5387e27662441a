/* SPDX-License-Identifier: MIT */
/* grant/iommu.h: a software IOMMU: which memory a device may reach, by bus address, and for what.
 *
 * An address space (`iommu_space`) is one domain's on one device: a radix tree from bus pages to frames, with entries
 * of 4 KiB and, where frames and addresses allow it, of 2 MiB. Only the privileged side makes and removes entries,
 * after it has validated the grant behind each; a guest is told bus addresses and nothing else. What a frame is, this
 * file does not know: a number that who asks can turn into an address (`iotlb_ops`).
 *
 * A device's queue translates through an IOTLB of its own. iotlb_get() checks at the time of use: present, permitted,
 * inside the window, the device still this space's; what it hands out is in use until iotlb_put(). A hit takes no lock,
 * no fence and no exchange: the price of an unmap is paid by the unmap.
 *
 * iommu_unmap() takes the entries away at once: no translation that begins afterwards succeeds, but for those of
 * IOMMU_DEFERRED below. It has ended (`done`) when no IOTLB can translate by them any more and no DMA under way uses
 * them; until then neither the frames may be given up nor are the bus addresses used again. IOMMU_STRICT begins that
 * with each unmap; IOMMU_DEFERRED gathers unmaps, until there are IOMMU_BATCH_MAX of them or somebody calls
 * iommu_flush() (who owns the unit does so every IOMMU_FLUSH_MS): meanwhile a translation that an IOTLB remembers still
 * works, on frames that are still held for it, so it reaches what the domain had granted and nothing else.
 *
 * `done` says that nothing will be read or written there any more; it does not say that every frame_hold() was undone.
 * That is for each IOTLB's own thread: one that was idle gives what it remembers back in its next iotlb_get(),
 * iotlb_turn() or iotlb_rest(), of whatever page. Where a hold is a pin in a frame table, it keeps the memory from
 * going back to its owner that much longer, and lets nobody reach it: so call iotlb_turn() before a revocation looks at
 * pins, and iotlb_rest() where a queue falls idle.
 *
 * What cannot be translated is a fault: it fails that request only, and is put down with domain, device, address and
 * reason in the unit's log, which keeps the last IOMMU_FAULTS_KEPT and counts all.
 *
 * What a domain can make us hold is bounded by the limits of its space: pages mapped and tables of the tree.
 *
 * Threads: map, unmap and flush from any thread, serialised by a lock of the space; an IOTLB is one thread's.
 */
#ifndef GRANT_IOMMU_H
#define GRANT_IOMMU_H

#include "base/err.h"
#include "base/list.h"

#define IOMMU_PAGE_SHIFT   12
#define IOMMU_LARGE_PAGES  512u /* of an entry of 2 MiB */
#define IOMMU_BUS_BITS_MAX 44   /* a bus page takes the 32 bits of a grant reference in a request */
#define IOMMU_BUS_BITS_32  32   /* a device that reaches 4 GiB only */
#define IOMMU_ANY          UINT64_MAX
#define IOMMU_BATCH_MAX    256
#define IOMMU_FLUSH_MS     10
#define IOMMU_FAULTS_KEPT  256

/* What a device may do to the page. */
#define IOMMU_READ  1u
#define IOMMU_WRITE 2u

enum iommu_fault_reason {
    IOMMU_F_NOT_PRESENT = 1, /* nothing is mapped there */
    IOMMU_F_PERMISSION,      /* mapped, not for that */
    IOMMU_F_FOREIGN,         /* the device is not, or no longer, of this domain */
    IOMMU_F_WINDOW,          /* beyond what the device can address */
    IOMMU_F_FRAME,           /* mapped, and its frame cannot be reached any more: its owner is gone or takes it back */
    IOMMU_F_INTERRUPT,       /* a device raised what was not assigned to it: intremap.h */
    IOMMU_F_COUNT_
};

enum iommu_flush_mode { IOMMU_STRICT, IOMMU_DEFERRED };

struct iommu_fault {
    uint64_t at_ns, address; /* bus address in bytes; of an interrupt: its vector */
    uint32_t device;
    uint16_t domid;
    uint8_t reason;
    bool write;
};

struct iommu;       /* the unit: one a process */
struct iommu_space; /* an address space */
struct iotlb;

/* 0 or -ENOMEM. */
int iommu_new(struct iommu **out);
void iommu_free(struct iommu *u); /* asserts that no space is left; NULL is fine */
/* The last faults, the oldest first: how many of up to `max`; *total counts all. */
unsigned iommu_faults(struct iommu *u, struct iommu_fault *out, unsigned max, uint64_t *total);
uint64_t iommu_fault_count(const struct iommu *u, uint8_t reason);
void iommu_fault_record(struct iommu *u, const struct iommu_fault *fault); /* at_ns is set here */
const char *iommu_fault_name(int reason);                                  /* "not-present"; never NULL */
const char *iommu_fault_text(int reason);

struct iommu_limits {
    uint32_t pages_max;  /* mapped at once */
    uint32_t tables_max; /* of 4 KiB, of the tree */
};

/* `device` is the number by which faults name it. The space has a number of its own, iommu_space_id(). 0, -ENOMEM, or
 * -EINVAL: bus_bits beyond 21 … IOMMU_BUS_BITS_MAX. */
int iommu_space_new(struct iommu *u, uint16_t domid, uint32_t device, unsigned bus_bits, enum iommu_flush_mode mode,
                    const struct iommu_limits *limits, struct iommu_space **out);
/* The device leaves this domain: every translation is IOMMU_F_FOREIGN from here on. */
void iommu_space_detach(struct iommu_space *s);
void iommu_space_free(struct iommu_space *s); /* asserts: no IOTLB, nothing mapped, no unmap under way */
uint32_t iommu_space_id(const struct iommu_space *s);

/* Maps `count` frames to bus pages in a row, from *bus_page on, or, where that is IOMMU_ANY, where there is room, which
 * is written there; page 0 is never given out. -EEXIST: some of them are taken (also: their unmap has not ended),
 * -ENOSPC: no room in the window, -EDQUOT: a limit, -ERANGE: beyond the window, -ENOMEM; then nothing is mapped. */
int iommu_map(struct iommu_space *s, uint64_t *bus_page, const uint32_t *frames, uint32_t count, unsigned access);

struct iommu_unmap {
    /* These two are the caller's to set. All of it has ended. Called once, with no lock held, from any iommu_*() or
     * iotlb_*() that takes the space or an IOTLB of it, but iommu_map(), in whatever thread: also from within the
     * iommu_unmap() that it belongs to. It may call iommu_*(), and no iotlb_*(). */
    void (*done)(struct iommu_unmap *u);
    bool keeps; /* its bus addresses stay taken behind done(), until iommu_unmap_free() */
    /* the space's own */
    struct list link;
    struct iommu_table *tables; /* emptied by it */
    uint64_t sequence, bus_page;
    uint32_t count;
    uint32_t uses; /* entries of IOTLBs that hold it up */
};
/* All of the pages must be mapped, else -ENOENT; -ENOMEM: a part of what was mapped at once, or of an entry of 2 MiB,
 * could not be told from the rest. Then nothing is done. `u` is borrowed until done(). */
int iommu_unmap(struct iommu_space *s, uint64_t bus_page, uint32_t count, struct iommu_unmap *u);
/* Of one that `keeps`, when it has ended: for who has books of the addresses and hears of the end in another thread. */
void iommu_unmap_free(struct iommu_space *s, struct iommu_unmap *u);
void iommu_flush(struct iommu_space *s); /* begins the end of what was deferred */

struct iommu_stats {
    uint64_t maps, unmaps, flushes; /* pages, pages, invalidations sent to IOTLBs */
    uint32_t pages, tables, large;  /* now: mapped, of the tree, entries of 2 MiB */
};
void iommu_space_stats(struct iommu_space *s, struct iommu_stats *out);

/* How frames become memory in this thread; neither may call back. */
struct iotlb_ops {
    /* Holds the frame for as long as it is remembered: 0, or whatever else: IOMMU_F_FRAME. */
    int (*frame_hold)(void *ctx, uint32_t frame, bool write, unsigned char **address, void **handle);
    void (*frame_release)(void *ctx, uint32_t frame, void *handle);
};

/* What is remembered of one bus page. */
struct iotlb_entry {
    _Alignas(64) uint64_t bus_page; /* 0: nothing is */
    unsigned char *address;         /* of the 4 KiB page */
    void *handle;                   /* frame_hold()'s */
    uint32_t frame;
    uint32_t in_use; /* DMAs under way */
    uint8_t access;  /* for which it is given out; 0: for none any more */
    bool stale;      /* goes with its last use: unmapped meanwhile, or not to be remembered */
    /* the IOTLB's own */
    uint32_t next, prev;
    struct iommu_unmap *unmap;
};

/* `entries`: a power of two, how many pages are remembered; `uses_max`: iotlb_get()s that may be in force at once, so
 * that none ever fails for want of an entry. 0 or -ENOMEM. */
int iotlb_new(struct iommu_space *s, const struct iotlb_ops *ops, void *ctx, uint32_t entries, uint32_t uses_max,
              struct iotlb **out);
void iotlb_free(struct iotlb *t); /* nothing is in use */
/* The bus page, for that access; 0 and an entry in use, or IOMMU_F_*, recorded. */
int iotlb_get(struct iotlb *t, uint64_t bus_page, bool write, struct iotlb_entry **out);
void iotlb_put(struct iotlb *t, struct iotlb_entry *e);
/* An entry's number, and back: what a request keeps. */
uint32_t iotlb_index(const struct iotlb *t, const struct iotlb_entry *e);
struct iotlb_entry *iotlb_at(struct iotlb *t, uint32_t index);
/* Does what others' unmaps ask of this IOTLB, as iotlb_get() and iotlb_put() do. Nobody needs to call it for an unmap
 * to end: one that has nothing in use is not asked, and one that has answers with its next get or put. It lets unmaps
 * of other pages end while a slow DMA is all that this IOTLB has. */
void iotlb_turn(struct iotlb *t);
/* iommu_unmap() for the IOTLB's thread: this IOTLB answers at once, and where it is the space's only one no barrier is
 * needed. */
int iotlb_unmap(struct iotlb *t, uint64_t bus_page, uint32_t count, struct iommu_unmap *u);
/* Forgets what is not in use: its frames are given back. */
void iotlb_rest(struct iotlb *t);

struct iotlb_stats {
    uint64_t hits, misses, faults, invalidations;
};
void iotlb_stats(const struct iotlb *t, struct iotlb_stats *out);

#endif
