/* SPDX-License-Identifier: MIT */
#include "store/path.h"

#include <stdio.h>
#include <string.h>

/* What a name may have in it; a '/' is looked at apart. */
static const bool name_character[256] = {
    ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['-'] = true, ['_'] = true, ['@'] = true};

/* Every '/' has a name behind it, except in "/". */
static bool path_well_formed(const char *text, size_t length)
{
    bool special = text[0] == '@';
    for (size_t i = 0; i < length; i++) {
        if (name_character[(unsigned char)text[i]])
            continue;
        if (text[i] != '/' || special || (text[i + 1] == '\0' && length > 1) || text[i + 1] == '/')
            return false;
    }
    return length > 1 || text[0] == '/';
}

/* The bytes of "/local/domain/<domid>/" in front, which no quota counts, so that a name means the same node whether it
 * is given as relative or as absolute. */
static size_t path_home(const char *text)
{
    static const char root[] = "/local/domain/";
    size_t root_length = sizeof(root) - 1;
    if (strncmp(text, root, root_length) != 0)
        return 0;
    size_t digits = strspn(text + root_length, "0123456789");
    return digits && text[root_length + digits] == '/' ? root_length + digits + 1 : 0;
}

int store_path_resolve(struct store_path *out, const char *given, unsigned domid, unsigned max_bytes)
{
    size_t length = strnlen(given, sizeof(out->text));
    out->relative = 0;
    out->special = given[0] == '@';
    if (given[0] != '/' && length > XENSTORE_REL_PATH_MAX)
        return EINVAL;
    if (given[0] != '/' && !out->special)
        out->relative = (size_t)snprintf(out->text, sizeof(out->text), "/local/domain/%u/", domid);
    if (length >= sizeof(out->text) - out->relative)
        return EINVAL;
    memcpy(out->text + out->relative, given, length + 1);
    out->length = out->relative + length;
    if (max_bytes && out->length - path_home(out->text) > max_bytes)
        return EINVAL;
    return path_well_formed(out->text, out->length) ? 0 : EINVAL;
}

int store_path_special(struct store_path *out, const char *given)
{
    size_t length = strnlen(given, XENSTORE_REL_PATH_MAX + 1);
    if (length > XENSTORE_REL_PATH_MAX)
        return EINVAL;
    out->length = length;
    out->relative = 0;
    out->special = true;
    memcpy(out->text, given, length + 1);
    return 0;
}

size_t store_path_name_offset(const char *text, size_t length)
{
    while (length > 0 && text[length - 1] != '/')
        length--;
    return length;
}

size_t store_path_parent(const char *text, size_t length)
{
    if (length <= 1 || text[0] != '/')
        return 0;
    size_t name = store_path_name_offset(text, length);
    return name == 1 ? 1 : name - 1;
}
