/* SPDX-License-Identifier: MIT */
/* store/journal.h: the store's state in a file that outlives the process: a snapshot, and each change since.
 *
 * The file is mapped and shared, its blocks are allocated before they are used, so a change costs no system call: it is
 * copied behind the last one before it takes effect, and the reply follows later. What is in the mapping survives a
 * kill -9 at any instruction. It need not survive the machine, nor the daemon: no domain does.
 *
 *   head   64 bytes: magic, where the snapshot ends, checksum; and the tail, a word of its own
 *   record length, crc32, number, and the bytes of one change (store/record.h), padded to 8; the numbers have no gap
 *
 * A record counts once its length is there, which is written last. The tail then moves behind it: a word that holds a
 * checksum of itself, so it is never half written. What lies before the tail was or may have been acknowledged, and
 * must be whole: else the file is damaged. What lies behind it was not: a record that is whole there counts, one that
 * is not was being written when the process died, and is dropped without a word.
 *
 * When the changes outgrow the snapshot, the state is written to a new file that takes the place of this one by
 * rename(). The one before stays beside it, `.old`: where the snapshot is damaged, the state is that file's as a whole
 * and then the changes of this one. Of a damaged file all that comes before the damage is kept, the log says how much
 * that is, and the file stays as `.bad`.
 *
 * A file that cannot grow refuses changes (ENOSPC) and nothing else; each further one tries again. The end of a domain
 * happens all the same: until a snapshot without it has been written, no other change is taken, so the next domain of
 * that number never meets what it left.
 *
 * The file is our own user's. Who can write it can make the store say anything, and could as well do so at its socket;
 * what is read from it is checked all the same.
 */
#ifndef STORE_JOURNAL_H
#define STORE_JOURNAL_H

#include "store/session.h"

#define STORE_JOURNAL_FILE "store.journal" /* in the run directory; beside it .old, .bad and, for moments, .new */

struct store_journal;

/* Puts what a predecessor left in `path` into the engine, which is fresh, and makes a new file of it. 0, or -errno with
 * a sentence; a damaged file or a full disk is no error. Borrows the engine. */
int store_journal_open(const char *path, struct store_engine *g, struct store_journal **out, struct err *e);
/* The same for an engine that has the state already, from a predecessor who handed it over in another way. */
int store_journal_continue(const char *path, struct store_engine *g, struct store_journal **out, struct err *e);
void store_journal_close(struct store_journal *j); /* the file stays */
/* The engine's hook: 0, or ENOSPC or EIO, and then the change must not happen. */
int store_journal_record(struct store_journal *j, const struct store_change *change);
/* Nobody is to find what was before: removes the file and those beside it, but for a damaged one that was kept. */
void store_journal_remove(const char *path);

#endif
