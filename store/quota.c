/* SPDX-License-Identifier: MIT */
#include "store/quota.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

const struct store_quota store_quota_default = {
#define STORE_QUOTA_DEFAULT(field, name, value, sentence) .field = value,
    STORE_QUOTAS(STORE_QUOTA_DEFAULT)};

const struct store_quota_row store_quota_rows[] = {
#define STORE_QUOTA_ROW(field, name, value, sentence) {name, sentence, offsetof(struct store_quota, field)},
    STORE_QUOTAS(STORE_QUOTA_ROW)};

const unsigned store_quota_row_count = ARRAY_SIZE(store_quota_rows);

const struct store_quota_row *store_quota_find(const char *name)
{
    for (unsigned i = 0; i < store_quota_row_count; i++)
        if (strcmp(store_quota_rows[i].name, name) == 0)
            return &store_quota_rows[i];
    return NULL;
}

unsigned *store_quota_field(struct store_quota *q, const struct store_quota_row *row)
{
    return (unsigned *)((char *)q + row->offset);
}

unsigned store_quota_value(const struct store_quota *q, const struct store_quota_row *row)
{
    return *(const unsigned *)((const char *)q + row->offset);
}

struct store_quota store_quota_complete(const struct store_quota *given)
{
    struct store_quota q = given ? *given : store_quota_default;
    for (unsigned i = 0; i < store_quota_row_count; i++) {
        unsigned *value = store_quota_field(&q, &store_quota_rows[i]);
        *value = *value ?: store_quota_value(&store_quota_default, &store_quota_rows[i]);
    }
    return q;
}

static int item_parse(char *item, struct store_quota *out, struct err *e)
{
    char *value = strchr(item, '=');
    uint64_t number;
    if (!value)
        return err_set(e, -EINVAL, "'%s' is no NAME=NUMBER", item);
    *value++ = '\0';
    const struct store_quota_row *row = store_quota_find(item);
    if (!row)
        return err_set(e, -EINVAL, "there is no quota '%s'", item);
    if (parse_u64(value, 1, INT_MAX, &number) < 0)
        return err_set(e, -EINVAL, "'%s' is no number for the quota %s", value, item);
    *store_quota_field(out, row) = (unsigned)number;
    return 0;
}

int store_quota_parse(const char *text, struct store_quota *out, struct err *e)
{
    char copy[512];
    int r = 0;
    if ((size_t)snprintf(copy, sizeof(copy), "%s", text) >= sizeof(copy))
        return err_set(e, -EINVAL, "the list of quotas is too long");
    for (char *save, *item = strtok_r(copy, ",", &save); item && r == 0; item = strtok_r(NULL, ",", &save))
        r = item_parse(item, out, e);
    return r;
}
