/* SPDX-License-Identifier: MIT */
#include "store/perm.h"

#include <stdio.h>
#include <string.h>

#include "base/parse.h"

static const char letter_of[] = {[0] = 'n', [STORE_READ] = 'r', [STORE_WRITE] = 'w', [STORE_READ | STORE_WRITE] = 'b'};

unsigned store_perms_access(const struct store_perm *perms, unsigned count, const struct store_actor *who)
{
    if (store_actor_privileged(who) || perms[0].domid == who->domid || perms[0].domid == who->target)
        return STORE_ALL;
    for (unsigned i = 1; i < count; i++)
        if (perms[i].domid == who->domid || perms[i].domid == who->target)
            return perms[i].access;
    return perms[0].access;
}

int store_domid_parse(const char *text, unsigned *out)
{
    uint64_t domid;
    if (text[0] < '0' || text[0] > '9' || (text[0] == '0' && text[1]) ||
        parse_u64(text, 0, STORE_DOMID_MAX, &domid) < 0)
        return EINVAL;
    *out = (unsigned)domid;
    return 0;
}

static int perm_parse(const char *text, struct store_perm *out)
{
    const char *letter = text[0] ? memchr(letter_of, text[0], sizeof(letter_of)) : NULL;
    unsigned domid;
    if (!letter || store_domid_parse(text + 1, &domid) != 0)
        return EINVAL;
    *out = (struct store_perm){(uint16_t)domid, (uint8_t)(letter - letter_of)};
    return 0;
}

int store_perms_parse(const char *text, size_t length, struct store_perm *out, unsigned *count)
{
    if (length == 0 || text[length - 1] != '\0')
        return EINVAL;
    *count = 0;
    for (size_t at = 0; at < length; at += strlen(text + at) + 1) {
        if (*count == STORE_PERMS_MAX || perm_parse(text + at, &out[*count]) != 0)
            return EINVAL;
        ++*count;
    }
    return 0;
}

size_t store_perm_format(const struct store_perm *perm, char *out)
{
    return (size_t)snprintf(out, 8, "%c%u", letter_of[perm->access & 3], perm->domid) + 1;
}
