/* SPDX-License-Identifier: MIT */
#include "store/watch.h"

#include <assert.h>
#include <string.h>

#include "store/session.h"

struct store_watch_point {
    struct strmap_entry entry; /* key: path */
    struct list watches;
    char path[];
};

void store_watches_init(struct store_watches *w, uint64_t seed)
{
    *w = (struct store_watches){0};
    strmap_init(&w->points, seed);
}

void store_watches_deinit(struct store_watches *w)
{
    assert(w->count == 0 && w->points.count == 0);
    strmap_deinit(&w->points);
}

static struct store_watch_point *point_of(struct strmap_entry *e)
{
    return e ? container_of(e, struct store_watch_point, entry) : NULL;
}

static struct store_watch_point *point_get(struct store_watches *w, const struct store_path *path)
{
    struct store_watch_point *p = point_of(strmap_find(&w->points, path->text, path->length));
    if (p)
        return p;
    p = malloc(sizeof(*p) + path->length + 1);
    if (!p)
        return NULL;
    list_init(&p->watches);
    memcpy(p->path, path->text, path->length + 1);
    strmap_insert(&w->points, &p->entry, p->path, path->length);
    return p;
}

static void point_put(struct store_watches *w, struct store_watch_point *p)
{
    if (!list_empty(&p->watches))
        return;
    strmap_remove(&w->points, &p->entry);
    free(p);
}

static size_t event_bytes(size_t length)
{
    return sizeof(struct store_event) + length + 1;
}

/* Each of several watches of one path is charged for the point that they share: the last one to go may be any. */
static size_t watch_bytes(size_t path_length, const char *token)
{
    return sizeof(struct store_watch) + strlen(token) + 1 + sizeof(struct store_watch_point) + path_length + 1;
}

size_t store_watch_bytes(const struct store_path *path, const char *token)
{
    return watch_bytes(path->length, token) + event_bytes(path->length);
}

static void event_free(struct store_event *event)
{
    struct store_session *s = event->watch->session;
    store_domain_credit(s->domain, event_bytes(event->entry.length));
    assert(s->event_count > 0);
    s->event_count--;
    list_remove(&event->queued);
    strmap_remove(&event->watch->pending, &event->entry);
    free(event);
}

static void event_queue(struct store_watches *w, struct store_watch *watch, uint32_t hash, const char *path,
                        size_t length)
{
    struct store_session *s = watch->session;
    if (strmap_find_hashed(&watch->pending, hash, path, length)) {
        w->merged++;
        return;
    }
    if (length + 1 + strlen(watch->token) + 1 > XENSTORE_PAYLOAD_MAX)
        return; /* cannot be said in one message: the reference server drops it, too */
    struct store_event *event = s->event_count < s->event_limit ? malloc(event_bytes(length)) : NULL;
    if (!event) {
        s->overflowed = true; /* an event was lost, so the connection must be */
        store_session_mark(s);
        return;
    }
    *event = (struct store_event){.watch = watch};
    memcpy(event->path, path, length);
    event->path[length] = '\0';
    strmap_insert_hashed(&watch->pending, &event->entry, hash, event->path, length);
    list_append(&s->events, &event->queued);
    s->event_count++;
    store_domain_charge(s->domain, event_bytes(length));
    w->events++;
    store_session_mark(s);
}

/* A guest has few watches of its own, however many others watch the point; domain 0 may have any number. */
static struct store_watch *watch_find(const struct store_watch_point *p, const struct store_session *s,
                                      const char *token)
{
    struct store_watch *watch;
    if (s->domain->domid != 0) {
        list_foreach (watch, &s->watches, of_session)
            if (watch->point == p && strcmp(watch->token, token) == 0)
                return watch;
        return NULL;
    }
    list_foreach (watch, &p->watches, of_point)
        if (watch->session == s && strcmp(watch->token, token) == 0)
            return watch;
    return NULL;
}

static int watch_make(struct store_watches *w, struct store_session *s, const struct store_path *path,
                      const char *token, struct store_watch **out)
{
    struct store_watch_point *p = point_get(w, path);
    if (!p)
        return ENOMEM;
    if (watch_find(p, s, token))
        return EEXIST;
    size_t token_length = strlen(token);
    struct store_watch *watch = malloc(sizeof(*watch) + token_length + 1);
    if (!watch) {
        point_put(w, p);
        return ENOMEM;
    }
    *watch = (struct store_watch){.session = s, .point = p, .relative = path->relative};
    memcpy(watch->token, token, token_length + 1);
    strmap_init(&watch->pending, w->points.seed);
    list_append(&p->watches, &watch->of_point);
    list_append(&s->watches, &watch->of_session);
    s->domain->watches++;
    store_domain_charge(s->domain, watch_bytes(path->length, token));
    w->count++;
    *out = watch;
    return 0;
}

int store_watch_add(struct store_watches *w, struct store_session *s, const struct store_path *path, const char *token)
{
    struct store_watch *watch;
    int error = watch_make(w, s, path, token, &watch);
    const char *given = path->text + path->relative;
    size_t length = path->length - path->relative;
    if (!error)
        event_queue(w, watch, strmap_hash(w->points.seed, given, length), given, length);
    return error;
}

int store_watch_restore(struct store_watches *w, struct store_session *s, const struct store_path *path,
                        const char *token)
{
    struct store_watch *watch;
    return watch_make(w, s, path, token, &watch);
}

int store_watch_restore_event(struct store_watches *w, struct store_session *s, const struct store_path *path,
                              const char *token, const char *event_path)
{
    struct store_watch_point *p = point_of(strmap_find(&w->points, path->text, path->length));
    struct store_watch *watch = p ? watch_find(p, s, token) : NULL;
    size_t length = strlen(event_path);
    if (!watch)
        return ENOENT;
    if (length > XENSTORE_ABS_PATH_MAX)
        return EINVAL;
    event_queue(w, watch, strmap_hash(w->points.seed, event_path, length), event_path, length);
    return s->overflowed ? ENOMEM : 0;
}

const char *store_watch_given(const struct store_watch *watch)
{
    return watch->point->path + watch->relative;
}

static void watch_free(struct store_watches *w, struct store_watch *watch)
{
    struct strmap_entry *e, *next;
    strmap_foreach_safe(&watch->pending, i, e, next) event_free(container_of(e, struct store_event, entry));
    strmap_deinit(&watch->pending);
    assert(watch->session->domain->watches > 0 && w->count > 0);
    watch->session->domain->watches--;
    store_domain_credit(watch->session->domain, watch_bytes(watch->point->entry.length, watch->token));
    w->count--;
    list_remove(&watch->of_session);
    list_remove(&watch->of_point);
    point_put(w, watch->point);
    free(watch);
}

int store_watch_remove(struct store_watches *w, struct store_session *s, const struct store_path *path,
                       const char *token)
{
    struct store_watch_point *p = point_of(strmap_find(&w->points, path->text, path->length));
    struct store_watch *watch = p ? watch_find(p, s, token) : NULL;
    if (!watch)
        return ENOENT;
    watch_free(w, watch);
    return 0;
}

void store_watch_remove_all(struct store_watches *w, struct store_session *s)
{
    struct store_watch *watch, *next;
    list_foreach_safe (watch, next, &s->watches, of_session)
        watch_free(w, watch);
    assert(s->event_count == 0 && list_empty(&s->events));
}

static bool news_allowed(const struct store_news *news, const struct store_actor *who)
{
    if (store_actor_privileged(who))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(news->seen); i++)
        if (news->seen[i] && (store_node_access(news->seen[i], who) & STORE_READ))
            return true;
    return false;
}

static void point_fire(struct store_watches *w, const struct store_watch_point *p, const struct store_news *news)
{
    struct store_watch *watch;
    list_foreach (watch, &p->watches, of_point) {
        struct store_actor who = store_session_actor(watch->session);
        const char *path = news->path + watch->relative;
        size_t length = news->length - watch->relative;
        if (news_allowed(news, &who))
            event_queue(w, watch, watch->relative ? strmap_hash(w->points.seed, path, length) : news->hash, path,
                        length);
    }
}

static void prefix_fire(struct store_watches *w, uint32_t hash, size_t length, const struct store_news *news)
{
    struct store_watch_point *p = point_of(strmap_find_hashed(&w->points, hash, news->path, length));
    if (p)
        point_fire(w, p, news);
}

/* One pass over the path, whose hash so far is that of each prefix. */
void store_watch_fire(struct store_watches *w, const struct store_news *news)
{
    uint32_t hash = w->points.seed;
    if (w->count == 0)
        return;
    for (size_t end = 1; end < news->length && !news->exact; end++) {
        hash = strmap_hash_byte(hash, news->path[end - 1]);
        if (news->path[end] == '/' || (end == 1 && news->path[0] == '/'))
            prefix_fire(w, hash, end, news);
    }
    prefix_fire(w, news->hash, news->length, news);
}

size_t store_watch_next(struct store_watches *w, struct store_session *s, char *payload)
{
    (void)w;
    if (list_empty(&s->events))
        return 0;
    struct store_event *event = list_entry(s->events.next, struct store_event, queued);
    size_t path_bytes = event->entry.length + 1, token_bytes = strlen(event->watch->token) + 1;
    assert(path_bytes + token_bytes <= XENSTORE_PAYLOAD_MAX);
    memcpy(payload, event->path, path_bytes);
    memcpy(payload + path_bytes, event->watch->token, token_bytes);
    event_free(event);
    return path_bytes + token_bytes;
}
