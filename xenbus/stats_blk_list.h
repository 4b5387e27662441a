/* SPDX-License-Identifier: MIT */
/* xenbus/stats_blk_list.h: what a disk's backend counts, in the order in which it is shown. A COUNTER never goes back
 * while the role lives; a GAUGE says how much now. The text is the help of the exposition format: one line, no full
 * stop. One row here and the one place where it is counted are all that a new number needs. No include guard: an
 * X-macro list. */
COUNTER(requests, "requests taken from the ring, bad ones included")
COUNTER(responses, "responses published")
COUNTER(reads, "good reads")
COUNTER(writes, "good writes")
COUNTER(flushes, "good flushes, with data or without")
COUNTER(sectors_read, "sectors of 512 bytes that good reads asked for")
COUNTER(sectors_written, "sectors of 512 bytes that good writes and flushes asked for")
COUNTER(syncs, "fdatasync calls made for flushes")
COUNTER(grants_mapped, "segments of requests whose grants were taken, each one page of the guest")
COUNTER(merges, "segments that were joined with the one before them, so that the I/O has fewer vectors")
COUNTER(errors, "requests answered with an error, of whatever kind")
COUNTER(batches, "times that responses were published")
COUNTER(notifications, "notifications sent to the guest")
COUNTER(notifications_suppressed, "times that responses were published and the guest had not asked to be told")
COUNTER(events, "notifications from the guest")
COUNTER(pauses, "times that a guest that notifies without cause was not listened to")
COUNTER(connects, "times that a frontend was connected")
COUNTER(dma_copied_bytes, "bytes that the copy strategy copied, as of the last second")
GAUGE(in_flight, "requests taken and not answered")
GAUGE(pinned_bytes, "memory registered with io_uring, which the kernel holds pinned, as of the last second")
GAUGE(dma_plain, "1: the kernel refused to register memory, plain vectors serve")
GAUGE(last_io_errno, "the last error of the storage as an errno, 0 for none")
