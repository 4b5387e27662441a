/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "base/util.h"
#include "tests/blkworld.h"
#include "tests/live_load.h"

void block_fill(unsigned char *to, unsigned block, uint32_t version)
{
    world_pattern(to, BLOCK, (uint64_t)block * BLOCK, version);
}

/* One round: LOAD_DEPTH blocks, written or read, all in flight at once. */
static void load_round(struct load *l, uint64_t round)
{
    static _Thread_local unsigned char data[LOAD_DEPTH][BLOCK], wanted[BLOCK];
    struct dz_io io[LOAD_DEPTH], *done[LOAD_DEPTH];
    unsigned submitted = 0;
    for (unsigned i = 0; i < LOAD_DEPTH; i++) {
        unsigned block = (unsigned)((round * 13 + i * 3) % BLOCKS);
        bool write = l->writes && (round + i) % 2;
        io[i] = (struct dz_io){.op = write ? DZ_WRITE : DZ_READ,
                               .buffer = data[i],
                               .length_bytes = BLOCK,
                               .offset_bytes = (uint64_t)block * BLOCK,
                               .result = 1};
        if (write)
            block_fill(data[i], block, (uint32_t)round + 2);
        int r = dz_vbd_submit(l->disk, &io[i]);
        submitted += r == 0;
        l->refused += r == -EROFS;
        assert_true(r == 0 || r == -EROFS);
    }
    for (unsigned n = 0; n < submitted;) {
        int r = dz_vbd_wait(l->disk, done, LOAD_DEPTH, -1);
        assert_true(r > 0);
        n += (unsigned)r;
    }
    for (unsigned i = 0; i < LOAD_DEPTH; i++) {
        unsigned block = (unsigned)(io[i].offset_bytes / BLOCK);
        l->errors += io[i].result < 0;
        if (io[i].result)
            continue;
        if (io[i].op == DZ_WRITE)
            l->version[block] = (uint32_t)round + 2;
        block_fill(wanted, block, l->version[block]);
        assert_memory_equal(data[i], wanted, BLOCK);
    }
}

static void *load_main(void *arg)
{
    struct load *l = arg;
    for (uint64_t round = 0; !l->stop; round++) {
        struct dz_vbd_info info;
        load_round(l, round);
        dz_vbd_info(l->disk, &info);
        l->size_bytes = info.size_bytes;
        l->readonly = info.readonly;
        l->changes = info.changes;
        l->rounds++;
    }
    return NULL;
}

void load_start(struct load *l, const struct world *w, const char *name, const char *disk_options)
{
    char dir[128], image[64];
    *l = (struct load){.world = w, .writes = true};
    snprintf(l->name, sizeof(l->name), "%s", name);
    snprintf(image, sizeof(image), "%s.img", name);
    world_image(l->world, image, MIB, 0);
    l->domid = world_guest(l->world, name, image, disk_options);
    snprintf(dir, sizeof(dir), "%s/dom/%u", l->world->run, l->domid);
    const struct dz_vbd_options options = {.timeout_ms = WORLD_PATIENCE_MS};
    if (dz_domain_open(dir, &l->dom) || dz_vbd_open(l->dom, "xvda", &options, &l->disk))
        fail_msg("%s", dz_error());
    l->size_bytes = MIB;
    assert_int_equal(pthread_create(&l->thread, NULL, load_main, l), 0);
}

/* The thread's end; the disk is the caller's then. */
void load_stop(struct load *l)
{
    l->stop = true;
    pthread_join(l->thread, NULL);
}

void load_end(struct load *l)
{
    char out[512];
    dz_vbd_close(l->disk);
    dz_domain_close(l->dom);
    if (world_domzero(l->world, out, sizeof(out), "destroy %s", l->name))
        fail_msg("%s", out);
}

static bool rounds_done(void *ctx)
{
    struct load *l = ctx;
    return l->rounds >= l->rounds_wanted;
}

/* The load has gone on for a while since now. */
void load_goes_on(struct load *l)
{
    l->rounds_wanted = l->rounds + 10;
    world_await(rounds_done, l, "the load to go on");
}

void command(struct load *l, const char *fmt, const char *rest)
{
    char args[256], out[1024];
    snprintf(args, sizeof(args), fmt, l->name);
    if (world_domzero(l->world, out, sizeof(out), "%s %s", args, rest))
        fail_msg("%s %s: %s", args, rest, out);
}

void attach(struct load *l, const char *vdev, const char *access, const char *image, const char *options)
{
    char spec[256];
    snprintf(spec, sizeof(spec), "format=raw,vdev=%s,access=%s,target=%s %s", vdev, access, world_path(l->world, image),
             options);
    command(l, "block-attach %s", spec);
}

void key_is(struct load *l, const char *key, const char *wanted)
{
    char out[512];
    assert_int_equal(world_shell(l->world, out, sizeof(out),
                                 "xenstore-read /local/domain/0/backend/vbd/%u/%u/%s 2>/dev/null || true", l->domid,
                                 BLKWORLD_DEVID, key),
                     0);
    out[strcspn(out, "\n")] = 0;
    assert_string_equal(out, wanted);
}

uint64_t file_size(const struct load *l, const char *name)
{
    struct stat st;
    assert_int_equal(stat(world_path(l->world, name), &st), 0);
    return (uint64_t)st.st_size;
}

struct size_wait {
    const struct load *load;
    uint64_t wanted;
};

static bool size_seen(void *ctx)
{
    const struct size_wait *w = ctx;
    return w->load->size_bytes == w->wanted;
}

void load_sees_size(struct load *l, uint64_t bytes)
{
    struct size_wait w = {l, bytes};
    world_await(size_seen, &w, "the guest to see the new size");
    world_await(size_seen, &w, "it to stay");
    load_goes_on(l);
}

void load_resize(struct load *l, uint64_t bytes)
{
    char text[32];
    uint32_t before = l->changes;
    snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
    command(l, "block-resize %s xvda", text);
    load_sees_size(l, bytes);
    assert_true(l->changes > before);
}
