/* SPDX-License-Identifier: MIT */
/* 04-read-disk: reads a virtual disk: shows its first sector, or copies a range of it to standard output.
 *
 *   build/domzero exec hello -- build/examples/04-read-disk xvda
 *   build/domzero exec hello -- build/examples/04-read-disk xvda --offset 1048576 --length 4096 > part
 *
 * The domain is that of examples/hello.cfg. What to look at: any memory can be read into; the library bounces it
 * through pages that are granted to the backend.
 */
#include <ctype.h>
#include <domzero/domzero.h>
#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (1u << 20)

static void usage(FILE *to, int status)
{
    fprintf(to, "usage: 04-read-disk [--offset BYTES] [--length BYTES] DISK\n"
                "Copies a range of the disk to standard output; without --length shows its first 512 bytes.\n");
    exit(status);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    if (!isdigit((unsigned char)*text) || *end)
        errx(2, "'%s' is no number of bytes", text);
    return n;
}

static void hexdump(const unsigned char *p, size_t length, uint64_t address)
{
    for (size_t row = 0; row < length; row += 16) {
        printf("%08" PRIx64 " ", address + row);
        for (size_t i = row; i < row + 16; i++)
            printf(" %02x", p[i]);
        printf("  ");
        for (size_t i = row; i < row + 16; i++)
            putchar(isprint(p[i]) ? p[i] : '.');
        putchar('\n');
    }
}

/* Reads whole sectors around the range and puts out the range. */
static void copy_out(struct dz_vbd *disk, uint64_t offset, uint64_t length)
{
    static unsigned char buffer[CHUNK_BYTES];
    struct dz_vbd_info info;
    dz_vbd_info(disk, &info);
    if (offset > info.size_bytes || length > info.size_bytes - offset)
        errx(1, "the disk ends at %" PRIu64, info.size_bytes);
    while (length) {
        uint64_t sector = offset - offset % info.sector_bytes, skip = offset - sector;
        uint64_t bytes = info.size_bytes - sector < CHUNK_BYTES ? info.size_bytes - sector : CHUNK_BYTES;
        uint64_t wanted = length < bytes - skip ? length : bytes - skip;
        bytes = (skip + wanted + info.sector_bytes - 1) / info.sector_bytes * info.sector_bytes;
        if (dz_vbd_read(disk, buffer, bytes, sector) < 0)
            errx(1, "%s", dz_error());
        if (fwrite(buffer + skip, 1, wanted, stdout) != wanted)
            err(1, "standard output");
        offset += wanted;
        length -= wanted;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"offset", required_argument, NULL, 'o'},
        {"length", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    uint64_t offset = 0, length = 0;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'o')
            offset = number(optarg);
        else if (c == 'l')
            length = number(optarg);
        else
            usage(c == 'h' ? stdout : stderr, c == 'h' ? 0 : 2);
    }
    if (optind + 1 != argc)
        usage(stderr, 2);
    if (dz_domain_open(NULL, &dom) < 0 || dz_vbd_open(dom, argv[optind], NULL, &disk) < 0)
        errx(1, "%s", dz_error());
    if (length) {
        copy_out(disk, offset, length);
    } else {
        struct dz_vbd_info info;
        unsigned char sector[4096];
        dz_vbd_info(disk, &info);
        if (dz_vbd_read(disk, sector, info.sector_bytes, 0) < 0)
            errx(1, "%s", dz_error());
        hexdump(sector, 512, 0);
    }
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return fflush(stdout) ? 1 : 0;
}
