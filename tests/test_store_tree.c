/* SPDX-License-Identifier: MIT */
/* The engine against a naive model: a list of nodes that is searched from its start. Random requests of three domains,
 * outside and inside transactions, must be answered alike. A transaction that commits must be serializable: replayed as
 * a whole upon the model of the moment of its commit, every answer that it got must come out again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <stdio.h>

#include "tests/storekit.h"

#define MODEL_NODES 600
#define MODEL_PERMS 3
#define SESSIONS    3
#define LOG_STEPS   24

struct model_node {
    char path[64], value[16];
    struct store_perm perms[MODEL_PERMS];
    unsigned perm_count;
};

struct model {
    struct model_node nodes[MODEL_NODES]; /* in the order of their creation */
    unsigned count;
};

/* One request; everything about it is plain data, so that it can be replayed. */
struct step {
    uint32_t type;
    unsigned domid;
    char path[64], value[16];
    struct store_perm perms[MODEL_PERMS];
    unsigned perm_count;
    struct kit_reply reply;
};

static struct model_node *model_find(struct model *m, const char *path)
{
    for (unsigned i = 0; i < m->count; i++)
        if (strcmp(m->nodes[i].path, path) == 0)
            return &m->nodes[i];
    return NULL;
}

static void path_up(char *path)
{
    char *slash = strrchr(path, '/');
    slash[slash == path] = '\0';
}

static struct model_node *model_ancestor(struct model *m, const char *path)
{
    char up[64];
    strcpy(up, path);
    do
        path_up(up);
    while (!model_find(m, up));
    return model_find(m, up);
}

static unsigned model_access(const struct model_node *n, unsigned domid)
{
    if (domid == 0 || n->perms[0].domid == domid)
        return STORE_ALL;
    for (unsigned i = 1; i < n->perm_count; i++)
        if (n->perms[i].domid == domid)
            return n->perms[i].access;
    return n->perms[0].access;
}

static void answer(struct kit_reply *r, uint32_t type, const char *bytes, size_t length)
{
    *r = (struct kit_reply){.type = type, .length = length};
    memcpy(r->bytes, bytes, length);
}

static void answer_error(struct kit_reply *r, const char *name)
{
    answer(r, XS_ERROR, name, strlen(name) + 1);
}

static void model_directory(struct model *m, const char *path, struct kit_reply *r)
{
    size_t length = strcmp(path, "/") == 0 ? 0 : strlen(path);
    *r = (struct kit_reply){.type = XS_DIRECTORY};
    for (unsigned i = 0; i < m->count; i++) {
        const char *p = m->nodes[i].path;
        if (strncmp(p, path, length) != 0 || p[length] != '/' || !p[length + 1] || strchr(p + length + 1, '/'))
            continue;
        strcpy(r->bytes + r->length, p + length + 1);
        r->length += strlen(p + length + 1) + 1;
    }
}

static void model_create(struct model *m, const char *path, const char *value, unsigned domid)
{
    char up[64];
    struct model_node n = *model_ancestor(m, path);
    strcpy(up, path);
    path_up(up);
    if (!model_find(m, up))
        model_create(m, up, "", domid);
    strcpy(n.path, path);
    strcpy(n.value, value);
    if (domid != 0)
        n.perms[0].domid = (uint16_t)domid;
    assert_true(m->count < MODEL_NODES);
    m->nodes[m->count++] = n;
}

static void model_remove(struct model *m, const char *path)
{
    size_t length = strlen(path);
    unsigned kept = 0;
    for (unsigned i = 0; i < m->count; i++) {
        const char *p = m->nodes[i].path;
        if (strncmp(p, path, length) != 0 || (p[length] != '\0' && p[length] != '/'))
            m->nodes[kept++] = m->nodes[i];
    }
    m->count = kept;
}

/* What a domain owned goes with all below it, and its name in other permissions. */
static void model_death(struct model *m, unsigned domid)
{
    for (unsigned i = 0; i < m->count;) {
        if (m->nodes[i].perms[0].domid == domid) {
            const struct model_node gone = m->nodes[i]; /* the removal moves the others together */
            model_remove(m, gone.path);
            i = 0;
        } else {
            i++;
        }
    }
    for (unsigned i = 0; i < m->count; i++) {
        struct model_node *n = &m->nodes[i];
        unsigned kept = 1;
        for (unsigned j = 1; j < n->perm_count; j++)
            if (n->perms[j].domid != domid)
                n->perms[kept++] = n->perms[j];
        n->perm_count = kept;
    }
}

static void model_change(struct model *m, const struct step *s, struct model_node *n, struct kit_reply *r)
{
    answer(r, s->type, "OK", 3);
    if (s->type == XS_RM && !n) {
        char up[64];
        strcpy(up, s->path);
        path_up(up);
        if (!model_find(m, up))
            answer_error(r, "ENOENT");
    } else if (s->type == XS_RM) {
        model_remove(m, s->path);
    } else if (s->type == XS_SET_PERMS && !n) {
        answer_error(r, "ENOENT");
    } else if (s->type == XS_SET_PERMS && s->domid != 0 && s->perms[0].domid != n->perms[0].domid) {
        answer_error(r, "EPERM");
    } else if (s->type == XS_SET_PERMS) {
        memcpy(n->perms, s->perms, sizeof(n->perms));
        n->perm_count = s->perm_count;
    } else if (!n) {
        model_create(m, s->path, s->type == XS_WRITE ? s->value : "", s->domid);
    } else if (s->type == XS_WRITE) {
        strcpy(n->value, s->value);
    }
}

static bool type_changes(uint32_t type)
{
    return type != XS_READ && type != XS_DIRECTORY && type != XS_GET_PERMS;
}

static void model_step(struct model *m, const struct step *s, struct kit_reply *r)
{
    bool change = type_changes(s->type);
    unsigned need = s->type == XS_SET_PERMS ? STORE_WRITE | STORE_OWNER : change ? STORE_WRITE : STORE_READ;
    struct model_node *n = model_find(m, s->path), *asked = n ? n : model_ancestor(m, s->path);
    unsigned have = model_access(asked, s->domid) & need;
    if (n ? have != need : have == 0)
        answer_error(r, "EACCES");
    else if (change)
        model_change(m, s, n, r);
    else if (!n)
        answer_error(r, "ENOENT");
    else if (s->type == XS_READ)
        answer(r, XS_READ, n->value, strlen(n->value));
    else if (s->type == XS_DIRECTORY)
        model_directory(m, s->path, r);
    else
        for (unsigned i = (*r = (struct kit_reply){.type = XS_GET_PERMS}, 0); i < n->perm_count; i++)
            r->length += store_perm_format(&n->perms[i], r->bytes + r->length);
}

static void engine_step(struct store_session *s, struct step *step, uint32_t tx)
{
    char payload[256];
    size_t length = strlen(step->path) + 1;
    strcpy(payload, step->path);
    if (step->type == XS_WRITE) {
        strcpy(payload + length, step->value);
        length += strlen(step->value);
    }
    for (unsigned i = 0; step->type == XS_SET_PERMS && i < step->perm_count; i++)
        length += store_perm_format(&step->perms[i], payload + length);
    step->reply = kit_ask(s, step->type, tx, payload, length);
}

static void step_make(struct step *step, uint64_t *random, unsigned domid)
{
    static const uint32_t types[] = {XS_READ,  XS_READ,  XS_DIRECTORY, XS_GET_PERMS, XS_WRITE,    XS_WRITE,
                                     XS_WRITE, XS_WRITE, XS_MKDIR,     XS_RM,        XS_SET_PERMS};
    unsigned depth = 1 + kit_random(random, 3);
    *step = (struct step){.type = types[kit_random(random, ARRAY_SIZE(types))], .domid = domid};
    strcpy(step->path, "/w");
    for (unsigned i = 0; i < depth; i++) {
        char name[3] = {'/', (char)('a' + kit_random(random, 4)), '\0'};
        strcat(step->path, name);
    }
    snprintf(step->value, sizeof(step->value), "%u", kit_random(random, 100000));
    step->perm_count = 1 + kit_random(random, MODEL_PERMS);
    for (unsigned i = 0; i < step->perm_count; i++)
        step->perms[i] = (struct store_perm){(uint16_t)kit_random(random, 3), (uint8_t)kit_random(random, 4)};
}

static void replies_equal(const struct kit_reply *a, const struct kit_reply *b)
{
    assert_string_equal(a->bytes, b->bytes);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->length, b->length);
    assert_memory_equal(a->bytes, b->bytes, a->length);
}

struct open_tx {
    uint32_t id;
    unsigned count;
    uint64_t commits_before;
    struct step log[LOG_STEPS];
};

static uint64_t commits; /* by the model's count, of this test */

static void tx_finish(struct model *m, struct store_session *s, struct open_tx *x, bool commit)
{
    struct kit_reply r = kit_ask1(s, XS_TRANSACTION_END, x->id, commit ? "T" : "F");
    if (commit && r.type == XS_ERROR) {
        kit_expect_error(r, "EAGAIN");
        assert_true(commits > x->commits_before); /* nobody else did anything: no reason to refuse */
    } else {
        kit_expect_ok(r);
    }
    for (unsigned i = 0; commit && r.type != XS_ERROR && i < x->count; i++) {
        struct kit_reply expected;
        model_step(m, &x->log[i], &expected);
        replies_equal(&x->log[i].reply, &expected);
    }
    commits += commit && r.type != XS_ERROR;
    x->id = 0;
}

/* Each domain's lists are what a search of the whole tree finds, and so is what it is charged. */
static void indexes_equal_a_search(const struct store_tree *t)
{
    for (unsigned domid = 0; domid < SESSIONS; domid++) {
        uint64_t bytes = 0;
        uint32_t owned = 0, named = 0;
        for (struct store_tree_slot *slot = NULL; (slot = store_tree_next(t, slot)) != NULL;) {
            struct store_node_parts parts = store_node_parts(slot->node);
            bool owns = store_node_owner(slot->node) == domid;
            owned += owns;
            bytes += owns ? store_tree_slot_bytes(slot->entry.length) + store_node_bytes(&parts) : 0;
            for (unsigned i = 1; domid != 0 && i < slot->node->perm_count; i++)
                named += slot->node->perms[i].domid == domid;
        }
        assert_int_equal(t->owned[domid], owned);
        assert_int_equal(t->domains[domid].bytes, bytes);
        for (struct store_tree_slot *slot = NULL; (slot = store_tree_owned_next(t, domid, slot)) != NULL; owned--)
            assert_int_equal(store_node_owner(slot->node), domid);
        for (struct store_tree_link *l = NULL; (l = store_tree_named_next(t, domid, l)) != NULL; named--)
            assert_true(store_node_names_domain(l->slot->node, domid));
        assert_int_equal(owned, 0);
        assert_int_equal(named, 0);
    }
}

/* A walk visits each slot once and its parent before it; the lists of children are those that the model has. */
static void walk_equals_model(struct store_tree *t, struct model *m)
{
    size_t visited = 0;
    for (struct store_tree_slot *slot = NULL; (slot = store_tree_next(t, slot)) != NULL; visited++) {
        char names[XENSTORE_PAYLOAD_MAX + 1];
        size_t bytes = 0;
        struct kit_reply expected = {0};
        assert_ptr_equal(slot, store_tree_find(t, slot->path, slot->entry.length));
        for (struct store_tree_slot *c = store_tree_child_first(slot); c; c = store_tree_child_next(c)) {
            assert_ptr_equal(c->parent, slot);
            bytes += strlen(strcpy(names + bytes, store_tree_slot_name(c))) + 1;
        }
        assert_int_equal(slot->children_bytes, bytes);
        if (slot->path[0] == '/')
            model_directory(m, slot->path, &expected);
        assert_int_equal(bytes, expected.length);
        assert_memory_equal(names, expected.bytes, bytes);
    }
    assert_int_equal(visited, t->slots.count);
}

/* What a transaction that changes nothing has read it reads again, whatever others do meanwhile. */
static void reads_are_repeatable(const struct open_tx *x, const struct step *step)
{
    for (unsigned i = 0; i < x->count; i++)
        if (type_changes(x->log[i].type))
            return;
    for (unsigned i = 0; i < x->count; i++) {
        const struct step *before = &x->log[i];
        if (before->type == step->type && before->reply.type != XS_ERROR && strcmp(before->path, step->path) == 0)
            replies_equal(&before->reply, &step->reply);
    }
}

static void engine_equals_model(struct store_engine *g, struct model *m)
{
    uint32_t owned[SESSIONS] = {0};
    for (unsigned i = 0; i < m->count; i++) {
        const struct model_node *n = &m->nodes[i];
        const struct store_node *have = store_tree_get(&g->tree, n->path, strlen(n->path));
        assert_non_null(have);
        assert_int_equal(have->value_bytes, strlen(n->value));
        assert_memory_equal(store_node_value(have), n->value, have->value_bytes);
        owned[n->perms[0].domid]++;
    }
    assert_int_equal(g->tree.slots.count, m->count + 2); /* the special nodes */
    for (unsigned domid = 0; domid < SESSIONS; domid++)
        assert_int_equal(g->tree.owned[domid], owned[domid] + (domid == 0 ? 2 : 0));
    walk_equals_model(&g->tree, m);
    indexes_equal_a_search(&g->tree);
}

/* A guest dies, and another of its number is there at once. */
static void guest_dies(struct model *m, struct store_engine *g, struct store_session *s, struct open_tx *x)
{
    if (x->id)
        tx_finish(m, s, x, false);
    store_engine_domain_gone(g, s->domain->domid);
    model_death(m, s->domain->domid);
    commits++;
    engine_equals_model(g, m);
    assert_int_equal(store_engine_domain_bytes(g, s->domain->domid), 0);
}

static void model_start(struct model *m, struct store_session *dom0)
{
    static const char *const paths[] = {"/", "/tool", "/tool/xenstored", "/w"};
    *m = (struct model){.count = ARRAY_SIZE(paths)};
    for (unsigned i = 0; i < m->count; i++) {
        strcpy(m->nodes[i].path, paths[i]);
        m->nodes[i].perm_count = 1;
    }
    m->nodes[3].perms[0].access = STORE_READ | STORE_WRITE;
    kit_expect_ok(kit_write(dom0, 0, "/w", ""));
    kit_expect_ok(kit_ask2(dom0, XS_SET_PERMS, 0, "/w", "b0"));
}

static void random_run(uint64_t seed, unsigned steps)
{
    static struct model m;
    static struct open_tx open[SESSIONS];
    struct store_engine g;
    struct store_session s[SESSIONS];
    memset(open, 0, sizeof(open));
    assert_int_equal(store_engine_init(&g, NULL, seed), 0);
    for (unsigned i = 0; i < SESSIONS; i++)
        assert_int_equal(store_session_init(&s[i], &g, i), 0);
    model_start(&m, &s[0]);
    for (unsigned i = 0; i < steps; i++) {
        unsigned who = kit_random(&seed, SESSIONS);
        struct open_tx *x = &open[who];
        struct step step;
        struct kit_reply expected;
        if (x->id && (x->count == LOG_STEPS || kit_random(&seed, 8) == 0)) {
            tx_finish(&m, &s[who], x, kit_random(&seed, 6) != 0);
            continue;
        }
        if (who != 0 && kit_random(&seed, 200) == 0)
            guest_dies(&m, &g, &s[who], x);
        if (!x->id && kit_random(&seed, 8) == 0)
            *x = (struct open_tx){.id = kit_tx(&s[who]), .commits_before = commits};
        step_make(&step, &seed, who);
        bool inside = x->id && kit_random(&seed, 4) != 0;
        engine_step(&s[who], &step, inside ? x->id : 0);
        if (inside) {
            reads_are_repeatable(x, &step);
            x->log[x->count++] = step;
            continue;
        }
        model_step(&m, &step, &expected);
        replies_equal(&step.reply, &expected);
        commits++;
        if (i % 64 == 0)
            engine_equals_model(&g, &m);
    }
    engine_equals_model(&g, &m);
    for (unsigned i = 0; i < SESSIONS; i++)
        store_session_deinit(&s[i]);
    assert_int_equal(g.transactions, 0);
    store_engine_deinit(&g);
}

static void test_random_requests_are_answered_as_a_naive_model_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        random_run(seed, 3000);
}

static void test_a_removed_subtree_of_any_depth_leaves_nothing(void **state)
{
    (void)state;
    struct store_engine g;
    struct store_session s;
    char path[XENSTORE_ABS_PATH_MAX + 1] = "/a";
    assert_int_equal(store_engine_init(&g, NULL, 1), 0);
    assert_int_equal(store_session_init(&s, &g, 0), 0);
    size_t before = g.tree.slots.count;
    while (strlen(path) + 2 <= store_quota_default.path_max_bytes)
        strcat(path, "/a");
    kit_expect_ok(kit_write(&s, 0, path, "deep"));
    assert_int_equal(g.tree.slots.count, before + strlen(path) / 2);
    kit_expect_text(kit_ask1(&s, XS_READ, 0, path), "deep");
    kit_expect_ok(kit_ask1(&s, XS_RM, 0, "/a"));
    assert_int_equal(g.tree.slots.count, before);
    assert_int_equal(g.tree.owned[0], before);
    store_session_deinit(&s);
    store_engine_deinit(&g);
}

static void test_versions_are_numbered_once(void **state)
{
    (void)state;
    struct store_engine g;
    struct store_session s;
    assert_int_equal(store_engine_init(&g, NULL, 1), 0);
    assert_int_equal(store_session_init(&s, &g, 0), 0);
    uint64_t last = 0;
    for (unsigned i = 0; i < 50; i++) {
        kit_expect_ok(kit_write(&s, 0, "/n", "same"));
        uint64_t generation = store_tree_get(&g.tree, "/n", 2)->generation;
        assert_true(generation > last);
        last = generation;
    }
    store_session_deinit(&s);
    store_engine_deinit(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_requests_are_answered_as_a_naive_model_does),
        cmocka_unit_test(test_a_removed_subtree_of_any_depth_leaves_nothing),
        cmocka_unit_test(test_versions_are_numbered_once),
    };
    return cmocka_run_group_tests_name("store_tree", tests, NULL, NULL);
}
