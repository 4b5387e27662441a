/* SPDX-License-Identifier: MIT */
#include "xenbus/keys_blk_set.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SET_DIR "domzero/set"

enum { IOPS_BURST = 1, BYTES_BURST = 3 }; /* of keys_blk_qos_keys */

/* ---- the request ---- */

static int put(struct store_client *c, store_tx tx, const char *back_dir, const char *name, const char *value,
               struct err *e)
{
    int r = store_write(c, tx, value, "%s/" SET_DIR "/%s", back_dir, name);
    return r < 0 ? err_set(e, r, "cannot write %s/" SET_DIR "/%s: %s", back_dir, name, strerror(-r)) : 0;
}

static int put_number(struct store_client *c, store_tx tx, const char *back_dir, const char *name, uint64_t value,
                      struct err *e)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return put(c, tx, back_dir, name, text, e);
}

static int put_qos(struct store_client *c, store_tx tx, const char *back_dir, const struct keys_blk_set *set,
                   struct err *e)
{
    struct keys_blk_qos q = set->qos;
    int r = 0;
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS && r == 0; i++) {
        const struct keys_blk_qos_key *key = &keys_blk_qos_keys[i];
        if (set->has_qos[i])
            r = put_number(c, tx, back_dir, key->name, *keys_blk_qos_value(&q, key), e);
    }
    return r;
}

int keys_blk_set_write(struct store_client *c, store_tx tx, const char *back_dir, const struct keys_blk_set *set,
                       struct err *e)
{
    _cleanup_free_ char **names = NULL;
    int r = store_directory(c, tx, &names, NULL, "%s/" SET_DIR, back_dir);
    if (r != -ENOENT)
        return err_set(e, r < 0 ? r : -EBUSY,
                       "another change of this disk waits for the backend: is domzerod's blk role running?");
    r = put(c, tx, back_dir, "id", set->id, e);
    if (r == 0 && set->has_readonly)
        r = put(c, tx, back_dir, "readonly", set->readonly ? "1" : "0", e);
    if (r == 0 && set->size_bytes)
        r = put_number(c, tx, back_dir, "size", set->size_bytes, e);
    if (r == 0 && set->dma[0])
        r = put(c, tx, back_dir, "dma", set->dma, e);
    if (r == 0 && set->has_poll)
        r = put(c, tx, back_dir, "poll", set->poll, e);
    return r ? r : put_qos(c, tx, back_dir, set, e);
}

/* One name of the request; what is not understood is refused and not passed over. */
static int get(struct store_client *c, store_tx tx, const char *dir, const char *name, struct keys_blk_set *out,
               struct err *e)
{
    uint64_t value;
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS; i++) {
        const struct xb_key key = {.name = name, .max = KEYS_BLK_QOS_MAX};
        if (strcmp(name, keys_blk_qos_keys[i].name))
            continue;
        out->has_qos[i] = true;
        return xb_key_read(c, tx, dir, &key, keys_blk_qos_value(&out->qos, &keys_blk_qos_keys[i]), e);
    }
    if (!strcmp(name, "id"))
        return 0; /* read first */
    if (!strcmp(name, "dma"))
        return xb_key_read_string(c, tx, dir, name, "", out->dma, sizeof(out->dma), e);
    if (!strcmp(name, "poll")) {
        out->has_poll = true;
        return xb_key_read_string(c, tx, dir, name, "", out->poll, sizeof(out->poll), e);
    }
    if (!strcmp(name, "size")) {
        const struct xb_key key = {.name = name, .min = 1, .max = INT64_MAX};
        return xb_key_read(c, tx, dir, &key, &out->size_bytes, e);
    }
    if (!strcmp(name, "readonly")) {
        const struct xb_key key = {.name = name, .max = 1};
        int r = xb_key_read(c, tx, dir, &key, &value, e);
        out->has_readonly = r == 0;
        out->readonly = r == 0 && value;
        return r;
    }
    return err_set(e, -EINVAL, "%s/%.40s: there is nothing of that name to set", dir, name);
}

int keys_blk_set_read(struct store_client *c, store_tx tx, const char *back_dir, struct keys_blk_set *out,
                      struct err *e)
{
    _cleanup_free_ char **names = NULL;
    char dir[160];
    snprintf(dir, sizeof(dir), "%s/" SET_DIR, back_dir);
    memset(out, 0, sizeof(*out));
    int r = store_directory(c, tx, &names, NULL, "%s", dir);
    if (r < 0)
        return r == -ENOENT ? r : err_set(e, r, "%s cannot be read: %s", dir, strerror(-r));
    r = xb_key_read_string(c, tx, dir, "id", "", out->id, sizeof(out->id), e);
    for (char **name = names; *name && r == 0; name++)
        r = get(c, tx, dir, *name, out, e);
    return r;
}

struct keys_blk_qos keys_blk_set_qos(const struct keys_blk_set *set, const struct keys_blk_qos *now)
{
    struct keys_blk_qos q = *now, asked = set->qos;
    for (unsigned i = 0; i < KEYS_BLK_QOS_KEYS; i++)
        if (set->has_qos[i])
            *keys_blk_qos_value(&q, &keys_blk_qos_keys[i]) = *keys_blk_qos_value(&asked, &keys_blk_qos_keys[i]);
    if (!q.iops && !(set->has_qos[IOPS_BURST] && asked.iops_burst)) /* who lifts a limit need not name its burst */
        q.iops_burst = 0;
    if (!q.bytes && !(set->has_qos[BYTES_BURST] && asked.bytes_burst))
        q.bytes_burst = 0;
    return q;
}

/* ---- the answer ---- */

int keys_blk_set_answer(struct store_client *c, store_tx tx, const char *back_dir, const char *id, const char *why,
                        struct err *e)
{
    int r = store_rm(c, tx, "%s/" SET_DIR, back_dir);
    r = r ? r : store_write(c, tx, id, "%s/domzero/done", back_dir);
    if (r == 0)
        r = *why ? store_write(c, tx, why, "%s/domzero/error", back_dir)
                 : store_rm(c, tx, "%s/domzero/error", back_dir);
    return r < 0 ? err_set(e, r, "cannot answer in %s/domzero: %s", back_dir, strerror(-r)) : 0;
}

int keys_blk_set_answered(struct store_client *c, const char *back_dir, const char *id, struct err *e)
{
    _cleanup_free_ char *done = NULL, *why = NULL;
    int r = store_read(c, STORE_NO_TX, &done, NULL, "%s/domzero/done", back_dir);
    if (r == -ENOENT || (r == 0 && strcmp(done, id)))
        return -EAGAIN;
    r = r ? r : store_read(c, STORE_NO_TX, &why, NULL, "%s/domzero/error", back_dir);
    if (r == 0)
        return err_set(e, -EIO, "%s", why);
    return r == -ENOENT ? 0 : err_set(e, r, "%s/domzero cannot be read: %s", back_dir, strerror(-r));
}
