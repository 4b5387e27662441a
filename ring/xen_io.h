/* SPDX-License-Identifier: MIT */
/* ring/xen_io.h: the include of Xen's I/O headers, with the fences that they expect, in one place.
 *
 * The sources of every layout are <xen/io/ring.h>, <xen/io/blkif.h> and <xen/io/netif.h> of libxen-dev; nothing of them
 * is typed again. The static asserts pin the sizes of the 64-bit block ABI that peers rely on.
 */
#ifndef RING_XEN_IO_H
#define RING_XEN_IO_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ThreadSanitizer does not model fences, and gcc warns of it. Nothing here needs it to: the slots are ordered by the
 * release and acquire of the index words, which it does model; a fence only keeps a store in front of a later load. */
#ifdef __SANITIZE_THREAD__
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#ifndef xen_mb
#define xen_mb()  atomic_thread_fence(memory_order_seq_cst)
#define xen_rmb() atomic_thread_fence(memory_order_acquire)
#define xen_wmb() atomic_thread_fence(memory_order_release)
#endif

#include <xen/io/blkif.h>
#include <xen/io/xenbus.h>

_Static_assert(sizeof(struct blkif_request) == 112, "blkif.h: request, 64-bit ABI");
_Static_assert(offsetof(struct blkif_request, sector_number) == 16 && offsetof(struct blkif_request, seg) == 24,
               "blkif.h");
_Static_assert(sizeof(struct blkif_request_segment) == 8, "blkif.h: segment");
_Static_assert(sizeof(struct blkif_response) == 16 && offsetof(struct blkif_response, status) == 10,
               "blkif.h: response");

#endif
