/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

void err_write(struct err *e, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof(e->text), fmt, ap);
        va_end(ap);
    }
}

void err_write_before(struct err *e, const char *fmt, ...)
{
    if (e) {
        char tail[sizeof(e->text)], head[sizeof(e->text)];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(head, sizeof(head), fmt, ap);
        va_end(ap);
        snprintf(tail, sizeof(tail), "%s", e->text);
        int n = snprintf(e->text, sizeof(e->text), "%s: ", head);
        if (n > 0 && (size_t)n < sizeof(e->text))
            snprintf(e->text + n, sizeof(e->text) - (size_t)n, "%.*s", (int)(sizeof(e->text) - (size_t)n - 1), tail);
    }
}
