/* SPDX-License-Identifier: MIT */
/* store/record.h: changes of the store as bytes, and bytes as changes again. Pure: where the bytes are kept is the
 * journal's business (store/journal.h).
 *
 * A record is one change as a whole: what one commit did to nodes, or one thing that happened to a domain. It is a row
 * of items: a kind, sizes, bytes; numbers in the order of this machine, unaligned. Of a commit it holds each node that
 * is another than before, with permissions and value, or that is gone; lists of children follow from that. A snapshot
 * is records, too: it begins with one item that empties the tree, and names parents before their children, oldest
 * first.
 *
 * Applying trusts nothing but its own memory: bytes that are no record are -EPROTO, and what the record held before the
 * place that is wrong may or may not have been applied. Watches, connections and open transactions are in no record:
 * they end with the process.
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "store/session.h"

/* The bytes of a change; 0: it changes nothing that a record holds. */
size_t store_record_size(const struct store_change *change);
/* Writes them; returns the end. */
char *store_record_write(const struct store_change *change, char *out);
/* The engine is as it was when the change was recorded: it takes effect, no hook is called. 0, -EPROTO, -ENOMEM. */
int store_record_apply(struct store_engine *g, const char *bytes, size_t length);
/* The whole state as records, each handed to `emit`: 0, -ENOMEM, or what emit returned. */
typedef int store_record_emit_fn(void *context, const char *bytes, size_t length);
int store_record_snapshot(const struct store_engine *g, store_record_emit_fn *emit, void *context);

#endif
