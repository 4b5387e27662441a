/* SPDX-License-Identifier: MIT */
/* examples/source.h: where 05-copy-into-disk takes its data from: a file, or a stream that a seed determines. */
#ifndef EXAMPLES_SOURCE_H
#define EXAMPLES_SOURCE_H

#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct source {
    int fd; /* -1: seeded */
    uint64_t seed, bytes;
};

/* "64M" and the like. */
static inline uint64_t source_size_parse(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end == text || (*end && (!unit || end[1])) || n > UINT64_MAX >> 40)
        errx(2, "'%s' is no size such as 4096 or 64M", text);
    return unit ? n << 10 * (unit - units + 1) : n;
}

static inline void source_open(struct source *s, const char *path)
{
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = s->fd < 0 ? -1 : lseek(s->fd, 0, SEEK_END);
    if (end < 0)
        err(1, "%s", path);
    s->bytes = (uint64_t)end;
}

/* `length` bytes from `at` on; what lies behind the source's end reads as zeroes. */
static inline void source_read(const struct source *s, void *to, size_t length, uint64_t at)
{
    uint64_t *words = memset(to, 0, length);
    ssize_t n = 1;
    for (size_t got = 0; s->fd >= 0 && n > 0 && got < length; got += (size_t)n)
        if ((n = pread(s->fd, (char *)to + got, length - got, (off_t)(at + got))) < 0)
            err(1, "the source cannot be read");
    for (size_t i = 0; s->fd < 0 && i < length / 8 && at + i * 8 < s->bytes; i++) {
        uint64_t z = (s->seed << 40 ^ (at / 8 + i)) * 0x9e3779b97f4a7c15; /* after splitmix64 */
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        words[i] = z ^ z >> 31;
    }
}

/* Writes the whole source into a file. */
static inline void source_save(const struct source *s, const char *path)
{
    static char block[1 << 16];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (uint64_t at = 0; fd >= 0 && at < s->bytes; at += sizeof(block)) {
        size_t length = s->bytes - at < sizeof(block) ? s->bytes - at : sizeof(block);
        source_read(s, block, sizeof(block), at);
        if (write(fd, block, length) != (ssize_t)length)
            err(1, "%s", path);
    }
    if (fd < 0 || close(fd))
        err(1, "%s", path);
}

#endif
