/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* The one process-wide state of base/: a name and a level, written before threads start and only read after. */
static const char *log_name = "domzero";
static enum log_level log_max = LOG_INFO;

static const char *const level_word[] = {"error: ", "warning: ", "", "debug: "};

void log_setup(const char *name, enum log_level level)
{
    log_name = name;
    log_max = level;
}

static void log_v(enum log_level level, const char *fmt, va_list ap)
{
    char line[1024];
    int head = snprintf(line, sizeof(line), "%s: %s", log_name, level_word[level]);
    int body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, ap);
    size_t length = (size_t)head + (size_t)MAX(body, 0);
    length = MIN(length, sizeof(line) - 2);
    line[length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, length); /* one write: lines of several roles do not mix */
    (void)ignored;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (level > log_max)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_v(level, fmt, ap);
    va_end(ap);
}

void log_peer(struct log_limiter *limiter, const char *fmt, ...)
{
    uint64_t now = clock_now_ns();
    if (now - limiter->window_start_ns >= CLOCK_NS_PER_S) {
        limiter->window_start_ns = now;
        limiter->in_window = 0;
    }
    if (limiter->in_window >= LOG_PEER_BURST) {
        limiter->suppressed++;
        return;
    }
    limiter->in_window++;
    va_list ap;
    va_start(ap, fmt);
    log_v(LOG_WARNING, fmt, ap);
    va_end(ap);
}
