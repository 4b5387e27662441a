/* SPDX-License-Identifier: MIT */
#include "tools/json.h"

void json_string(FILE *f, const char *text)
{
    putc('"', f);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(f, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(f, "\\u%04x", *p);
        else
            putc(*p, f);
    }
    putc('"', f);
}

void json_member(FILE *f, bool first, const char *name, const char *text)
{
    fprintf(f, "%s\"%s\": ", first ? "" : ", ", name);
    json_string(f, text);
}

char *json_plain(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return text;
}
