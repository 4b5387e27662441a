/* SPDX-License-Identifier: MIT */
/* store/watch.h: who wants to know of which paths, and the events that wait for them.
 *
 * Watches are indexed by path. A change looks up its own path and each prefix of it, so watches elsewhere cost nothing.
 * An event is queued at its session, at most one for each watch and path: a second change before the first was
 * delivered adds nothing, as an event says that something changed and not what. A queue that grows beyond the
 * session's bound marks the session overflowed; the socket edge ends it.
 *
 * A watcher learns of a change where it may read the node or its parent, before or after. The watch's token, its path
 * and how often it is set are a peer's choice: counted, bounded by the watch quota and by a payload.
 */
#ifndef STORE_WATCH_H
#define STORE_WATCH_H

#include "base/list.h"
#include "store/domain.h"
#include "store/node.h"
#include "base/strmap.h"

struct store_session;

struct store_watch {
    struct list of_session, of_point;
    struct store_session *session;
    struct store_watch_point *point;
    struct strmap pending; /* store_event.entry by path, as sent */
    size_t relative;       /* bytes to take off a path in front, where the watch was set as relative */
    char token[];
};

struct store_event {
    struct strmap_entry entry; /* key: path */
    struct list queued;        /* its session's */
    struct store_watch *watch;
    char path[];
};

struct store_watches {
    struct strmap points;
    unsigned count;
    uint64_t events, merged;
};

/* A change to tell of. `seen`: the node and its parent, before and after; NULL entries are nobody's to read. */
struct store_news {
    const char *path;
    size_t length;
    uint32_t hash; /* the path's, by the seed that the watches were given */
    bool exact;    /* only those who watch this very path */
    const struct store_node *seen[4];
};

void store_watches_init(struct store_watches *w, uint64_t seed);
void store_watches_deinit(struct store_watches *w); /* asserts that none is left */
/* What a watch takes, its own first event included. */
size_t store_watch_bytes(const struct store_path *path, const char *token);
/* Sets a watch; its first event, with its own path, is queued. 0, or for the peer EEXIST, ENOMEM. */
int store_watch_add(struct store_watches *w, struct store_session *s, const struct store_path *path, const char *token);
/* Also drops its waiting events. 0 or ENOENT. */
int store_watch_remove(struct store_watches *w, struct store_session *s, const struct store_path *path,
                       const char *token);
void store_watch_remove_all(struct store_watches *w, struct store_session *s);
/* For a watch that was set in an earlier life (store/state.h): no first event. 0, EEXIST, ENOMEM. */
int store_watch_restore(struct store_watches *w, struct store_session *s, const struct store_path *path,
                        const char *token);
/* … and for an event of it that was waiting: 0, ENOENT, EINVAL where it is too long, ENOMEM. */
int store_watch_restore_event(struct store_watches *w, struct store_session *s, const struct store_path *path,
                              const char *token, const char *event_path);
/* The path as the watcher gave it. */
const char *store_watch_given(const struct store_watch *watch);
void store_watch_fire(struct store_watches *w, const struct store_news *news);
/* Takes the session's oldest event as a WATCH_EVENT payload of at most XENSTORE_PAYLOAD_MAX bytes; 0: none waits. */
size_t store_watch_next(struct store_watches *w, struct store_session *s, char *payload);

#endif
