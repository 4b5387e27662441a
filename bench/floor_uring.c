/* SPDX-License-Identifier: MIT */
/* bench/floor_uring.c: the floor: the same load on the file itself, by one thread and one io_uring with a fixed file
 * and fixed buffers, submitting and waiting in one system call. What a block backend in between costs is measured
 * against it.
 */
#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>

#include "bench/load.h"

struct floor {
    struct load load;
    struct io_uring ring;
    unsigned char *buffers;
    uint64_t started_ns[LOAD_QD_MAX];
};

static int floor_setup(struct floor *f)
{
    int fd = open(f->load.target, O_RDWR | (f->load.direct ? O_DIRECT : 0));
    if (fd < 0) {
        perror(f->load.target);
        return -1;
    }
    f->load.size_bytes = (uint64_t)lseek(fd, 0, SEEK_END);
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    size_t bytes = (size_t)f->load.qd * f->load.block_bytes;
    f->buffers = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    struct iovec v = {f->buffers, bytes};
    if (f->buffers == MAP_FAILED || io_uring_queue_init_params(512, &f->ring, &p) ||
        io_uring_register_files(&f->ring, &fd, 1) || io_uring_register_buffers(&f->ring, &v, 1)) {
        fprintf(stderr, "floor_uring: cannot set up io_uring (RLIMIT_MEMLOCK?)\n");
        return -1;
    }
    io_uring_register_ring_fd(&f->ring);
    return 0;
}

static void floor_queue(struct floor *f, unsigned slot, uint64_t now_ns)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    void *buffer = f->buffers + (size_t)slot * f->load.block_bytes;
    uint64_t offset = load_next_offset(&f->load);
    if (f->load.write)
        io_uring_prep_write_fixed(sqe, 0, buffer, f->load.block_bytes, offset, 0);
    else
        io_uring_prep_read_fixed(sqe, 0, buffer, f->load.block_bytes, offset, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = slot;
    f->started_ns[slot] = now_ns;
}

static void floor_run(struct floor *f)
{
    uint64_t start = clock_now_ns(), end = start + (uint64_t)(f->load.seconds * 1e9), now = start;
    double cpu = load_cpu_s();
    unsigned in_flight = 0;
    for (; in_flight < f->load.qd; in_flight++)
        floor_queue(f, in_flight, now);
    while (in_flight) {
        io_uring_submit_and_wait(&f->ring, 1);
        unsigned head, seen = 0;
        struct io_uring_cqe *cqe;
        now = clock_now_ns();
        io_uring_for_each_cqe (&f->ring, head, cqe) {
            unsigned slot = (unsigned)cqe->user_data;
            seen++;
            f->load.done++;
            f->load.errors += cqe->res != (int)f->load.block_bytes;
            hist_add(&f->load.latency_ns, now - f->started_ns[slot]);
            if (now < end)
                floor_queue(f, slot, now);
            else
                in_flight--;
        }
        io_uring_cq_advance(&f->ring, seen);
    }
    f->load.elapsed_s = (double)(clock_now_ns() - start) / 1e9;
    f->load.cpu_s = load_cpu_s() - cpu;
}

int main(int argc, char **argv)
{
    static struct floor f;
    int status = load_parse(&f.load, argc, argv);
    if (status)
        return status;
    if (floor_setup(&f) < 0)
        return 1;
    floor_run(&f);
    load_print(&f.load, "");
    return f.load.errors != 0;
}
