/* SPDX-License-Identifier: MIT */
/* tools/json.h: the little JSON that listings print. Text may be a guest's: it is escaped, so it cannot end its string
 * (json_string) or move a terminal's cursor (json_plain, for tables). */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <stdbool.h>
#include <stdio.h>

/* `text` in quotes. Bytes that are no ASCII are written as they are. */
void json_string(FILE *f, const char *text);
/* "name": "text", preceded by a comma unless `first`. */
void json_member(FILE *f, bool first, const char *name, const char *text);
/* Puts '?' for what is not printable. */
char *json_plain(char *text);

#endif
