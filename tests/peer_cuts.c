/* SPDX-License-Identifier: MIT */
/* peer_cuts.c: what a cut of the power leaves of a disk whose image has a log (backend/blk/image_log.h).
 *
 *   peer_cuts BEFORE LOG OUT PLACE SEED
 *
 * OUT becomes BEFORE, the disk as it was when the log began, with what the last flush that had ended at PLACE (bytes
 * into the log) covers, and of the writes between that and PLACE a random half: in units of UNIT, what a disk that says
 * so (physical-sector-size) writes wholly or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/blk/image.h"
#include "backend/blk/image_log.h"
#include "base/parse.h"
#include "base/util.h"

#define UNIT 4096u

struct log {
    const unsigned char *bytes;
    uint64_t end;
};

static int die(const char *what)
{
    fprintf(stderr, "peer_cuts: %s: %s\n", what, strerror(errno));
    return 1;
}

/* The record at *at, and where the next one is. False: the place is reached. */
static bool record_next(const struct log *l, uint64_t *at, struct image_log_record *out, uint64_t *data)
{
    if (l->end - *at < sizeof(*out))
        return false;
    memcpy(out, l->bytes + *at, sizeof(*out));
    *data = *at + sizeof(*out);
    if (out->magic != IMAGE_LOG_MAGIC || out->bytes > l->end - *data)
        return false;
    *at = *data + out->bytes;
    return true;
}

static uint64_t covered_by_flushes(const struct log *l)
{
    struct image_log_record r;
    uint64_t covered = 0, data;
    for (uint64_t at = 0; record_next(l, &at, &r, &data);)
        if (r.event == IMAGE_SYNC_END)
            covered = r.number;
    return covered;
}

/* A write, or of one that no flush covers some units. */
static int replay(int fd, const struct log *l, const struct image_log_record *r, uint64_t data, bool whole,
                  uint64_t *random)
{
    for (uint64_t done = 0; done < r->bytes;) {
        uint64_t at = r->offset_bytes + done, length = MIN(r->bytes - done, UNIT - at % UNIT);
        *random = *random * 6364136223846793005ull + 1442695040888963407ull;
        if ((whole || *random >> 63) && pwrite(fd, l->bytes + data + done, length, (off_t)at) != (ssize_t)length)
            return die("write");
        done += length;
    }
    return 0;
}

static int cut_make(int fd, const struct log *l, uint64_t seed)
{
    struct image_log_record r;
    uint64_t covered = covered_by_flushes(l), begin = 0, data;
    int rc = 0;
    for (uint64_t at = 0; !rc && record_next(l, &at, &r, &data); begin = at)
        if (r.event == IMAGE_WROTE)
            rc = replay(fd, l, &r, data, begin < covered, &seed);
    return rc;
}

static int copy(const char *from, int to)
{
    static unsigned char buffer[1 << 20];
    _cleanup_close_ int fd = open(from, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    while (fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0)
        if (write(to, buffer, (size_t)n) != n)
            return -1;
    return n < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    uint64_t place, seed;
    struct stat st;
    if (argc != 6 || parse_u64(argv[4], 0, UINT64_MAX, &place) || parse_u64(argv[5], 0, UINT64_MAX, &seed)) {
        fprintf(stderr, "usage: peer_cuts BEFORE LOG OUT PLACE SEED\n");
        return 2;
    }
    _cleanup_close_ int log_fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int out = open(argv[3], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_fd < 0 || out < 0 || fstat(log_fd, &st) || copy(argv[1], out))
        return die("files");
    void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, log_fd, 0);
    if (m == MAP_FAILED)
        return die(argv[2]);
    const struct log l = {.bytes = m, .end = MIN(place, (uint64_t)st.st_size)};
    return cut_make(out, &l, seed);
}
