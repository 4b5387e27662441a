/* SPDX-License-Identifier: MIT */
/* bench/floor_uring.c: the floor: the same load on the file itself, by an io_uring with a fixed file and fixed buffers,
 * whose completions are run by the thread that waits for them, and which submits and waits for half of what is in
 * flight in one system call. What a block backend in between costs is measured against it.
 *
 * -j N: N such loops side by side. -n: no I/O at all, the ring's own
 * speed (TARGET is not looked at). */
#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>

#include "bench/load.h"

#define RING_ENTRIES 256 /* LOAD_QD_MAX */

struct floor {
    struct load_thread thread;
    struct io_uring ring;
    unsigned char *buffers;
    uint64_t started_ns[LOAD_QD_MAX];
};

static int floor_register_buffers(struct floor *f)
{
    const struct load *l = &f->thread.load;
    struct iovec v[LOAD_QD_MAX];
    if (posix_memalign((void **)&f->buffers, 4096, (size_t)l->qd * l->block_bytes))
        return -1;
    memset(f->buffers, 1, (size_t)l->qd * l->block_bytes);
    for (unsigned i = 0; i < l->qd; i++)
        v[i] = (struct iovec){f->buffers + (size_t)i * l->block_bytes, l->block_bytes};
    return io_uring_register_buffers(&f->ring, v, l->qd);
}

/* The ring belongs to the thread that makes it. */
static bool floor_setup(struct load_thread *t)
{
    struct floor *f = container_of(t, struct floor, thread);
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int e = io_uring_queue_init_params(RING_ENTRIES, &f->ring, &p);
    if (!e && !t->load.nop) {
        int fd = open(t->load.target, (t->load.write ? O_RDWR : O_RDONLY) | (t->load.direct ? O_DIRECT : 0));
        if (fd < 0) {
            perror(t->load.target);
            return false;
        }
        e = io_uring_register_files(&f->ring, &fd, 1);
        e = e ? e : floor_register_buffers(f);
    }
    if (e) {
        fprintf(stderr, "floor_uring: cannot set up io_uring (RLIMIT_MEMLOCK?)\n");
        return false;
    }
    io_uring_register_ring_fd(&f->ring);
    return true;
}

static void floor_queue(struct floor *f, unsigned slot, uint64_t now_ns)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    struct load *l = &f->thread.load;
    void *buffer = f->buffers + (size_t)slot * l->block_bytes;
    if (l->nop)
        io_uring_prep_nop(sqe);
    else if (l->write)
        io_uring_prep_write_fixed(sqe, 0, buffer, l->block_bytes, load_next_offset(l), (int)slot);
    else
        io_uring_prep_read_fixed(sqe, 0, buffer, l->block_bytes, load_next_offset(l), (int)slot);
    sqe->flags |= l->nop ? 0 : IOSQE_FIXED_FILE;
    sqe->user_data = slot;
    f->started_ns[slot] = now_ns;
}

static bool floor_run(struct load_thread *t)
{
    struct floor *f = container_of(t, struct floor, thread);
    struct load *l = &t->load;
    uint64_t now = clock_now_ns();
    unsigned in_flight = 0, batch = MAX(l->qd / 2, 1);
    int good = l->nop ? 0 : (int)l->block_bytes;
    for (; in_flight < l->qd; in_flight++)
        floor_queue(f, in_flight, now);
    while (in_flight) {
        io_uring_submit_and_wait(&f->ring, MIN(in_flight, batch));
        l->syscalls++;
        unsigned head, seen = 0;
        struct io_uring_cqe *cqe;
        now = clock_now_ns();
        io_uring_for_each_cqe (&f->ring, head, cqe) {
            unsigned slot = (unsigned)cqe->user_data;
            seen++;
            l->errors += cqe->res != good;
            hist_add(&l->latency_ns, now - f->started_ns[slot]);
            if (now < l->end_ns)
                floor_queue(f, slot, now);
            else
                in_flight--;
        }
        l->done += seen;
        io_uring_cq_advance(&f->ring, seen);
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct load l;
    int status = load_parse(&l, argc, argv);
    if (status)
        return status;
    struct stat st = {.st_size = l.block_bytes};
    if (!l.nop && (stat(l.target, &st) < 0 || st.st_size < l.block_bytes)) {
        fprintf(stderr, "floor_uring: %s is no file of at least one block\n", l.target);
        return 1;
    }
    l.size_bytes = (uint64_t)st.st_size;
    static struct floor part[LOAD_THREADS_MAX];
    struct load_row row = {&part[0].thread, sizeof(part[0]), floor_setup, floor_run};
    if (!load_run(&l, &row))
        return 1;
    char extra[64];
    snprintf(extra, sizeof(extra), ", \"syscalls_per_io\": %.4f", (double)l.syscalls / (double)l.done);
    load_print(&l, extra);
    return l.errors != 0;
}
