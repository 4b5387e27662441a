/* SPDX-License-Identifier: MIT */
/* fio-domzero.c: an I/O engine for fio that is a guest of domzero: any job file runs on a virtual disk.
 *
 *   domzero exec VM -- fio --ioengine=external:build/fio-domzero.so --domzero_vdev=xvda job.fio
 *
 * A program of the installed header alone, built with the headers of the very fio that loads it (fio-source.sh).
 *
 * A job's block is one transfer of diskshare.h. It becomes as many requests of the disk as it takes, so blocks may have
 * any size, and iodepth counts blocks. Transfers wait in a queue for free requests; queue() therefore never says busy.
 * fio's buffers come from the disk's pool and go without a copy. Where all buffers together are more than
 * POOL_BYTES_MAX they are ordinary memory, and the library copies.
 *
 * fio's sync operations (fsync=, fdatasync=) are flushes, its trims discards. As everywhere, a flush covers the writes
 * that fio had back before it.
 *
 * A disk is open once. Jobs that are threads (thread=1) share it, the first to come decides over its pool and ring;
 * jobs that are processes cannot, so for them numjobs must be 1 for a disk (or several jobs have stonewall). Different
 * disks can be used by any jobs at once: each disk is an instance of the domain, with a connection of its own. setup()
 * runs in fio's first process, before it forks, and only looks at the disk: it closes everything again. init() opens
 * the disk in the job's process or thread. io_submit_mode=offload cannot be used: each of its threads would have an
 * engine of its own. */
#include <fio.h>
#include <optgroup.h>

#include "plugins/diskshare.h"

#define POOL_BYTES_MAX (32u << 20)
#define PAGE_BYTES     4096u
#define DEPTH_MAX      512u /* of a ring */
#define DEPTH_SHARED   128u

struct disk_options {
    void *unused; /* fio takes offset 0 for "no option" */
    char *vdev, *domain_dir;
    unsigned spin_us;
};

struct engine {
    struct diskshare *share;
    struct diskshare_user user; /* this job */
    unsigned uncommitted;
    struct diskshare_transfer *transfer; /* iodepth of them: by io_u->index at first */
    unsigned transfer_count;
    struct diskshare_transfer **event; /* what getevents() found, for event() */
    size_t pool_bytes;                 /* of fio's buffers; 0: ordinary memory */
};

static void disk_complain(const char *sentence)
{
    log_err("fio: domzero: %s\n", sentence);
}

/* ---- what fio calls for I/O ---- */

static enum dz_op op_of(enum fio_ddir ddir)
{
    return ddir == DDIR_READ ? DZ_READ : ddir == DDIR_WRITE ? DZ_WRITE : ddir == DDIR_TRIM ? DZ_DISCARD : DZ_FLUSH;
}

static enum fio_q_status engine_queue(struct thread_data *td, struct io_u *io_u)
{
    struct engine *e = td->io_ops_data;
    struct diskshare_transfer *t = io_u->engine_data;
    fio_ro_check(td, io_u);
    if (!ddir_sync(io_u->ddir) && !ddir_rw(io_u->ddir)) {
        io_u->error = EOPNOTSUPP;
        return FIO_Q_COMPLETED;
    }
    *t = (struct diskshare_transfer){.op = op_of(io_u->ddir), .owner = io_u};
    if (t->op != DZ_FLUSH) {
        t->offset_bytes = io_u->offset;
        t->length_bytes = io_u->xfer_buflen;
        t->buffer = t->op == DZ_DISCARD ? NULL : io_u->xfer_buf;
    }
    diskshare_submit(&e->user, t);
    e->uncommitted++;
    return FIO_Q_QUEUED;
}

static int engine_commit(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    diskshare_kick(&e->user);
    io_u_mark_submit(td, e->uncommitted);
    e->uncommitted = 0;
    return 0;
}

static int engine_getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
    struct engine *e = td->io_ops_data;
    int timeout_ms = t ? (int)(t->tv_sec * 1000 + t->tv_nsec / 1000000) : -1;
    return (int)diskshare_wait(&e->user, e->event, min, max < e->transfer_count ? max : e->transfer_count, timeout_ms);
}

static struct io_u *engine_event(struct thread_data *td, int event)
{
    const struct engine *e = td->io_ops_data;
    struct io_u *io_u = e->event[event]->owner;
    if (e->event[event]->result < 0)
        io_u->error = (unsigned)-e->event[event]->result;
    return io_u;
}

/* ---- memory ---- */

static int engine_iomem_alloc(struct thread_data *td, size_t bytes)
{
    struct engine *e = td->io_ops_data;
    td->orig_buffer = bytes <= POOL_BYTES_MAX ? diskshare_buffer_alloc(e->share, bytes) : NULL;
    e->pool_bytes = td->orig_buffer ? bytes : 0;
    if (!td->orig_buffer)
        td->orig_buffer = malloc(bytes);
    return td->orig_buffer ? 0 : 1;
}

static void engine_iomem_free(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    if (e && e->pool_bytes)
        diskshare_buffer_free(e->share, td->orig_buffer, e->pool_bytes);
    else
        free(td->orig_buffer);
}

static int engine_io_u_init(struct thread_data *td, struct io_u *io_u)
{
    const struct engine *e = td->io_ops_data;
    io_u->engine_data = &e->transfer[io_u->index]; /* a union: the index is gone then */
    return 0;
}

/* ---- a job's beginning and end ---- */

/* How many threads will share the disk only fio knows: the first of them opens it for as many as are likely. */
static int disk_open(struct thread_data *td, uint64_t pool_bytes, struct diskshare **share)
{
    const struct disk_options *o = td->eo;
    uint32_t depth = td->o.use_thread && td->o.iodepth < DEPTH_SHARED ? DEPTH_SHARED : td->o.iodepth;
    struct dz_vbd_options options = {
        .spin_us = o->spin_us,
        .queue_depth = depth < DEPTH_MAX ? depth : DEPTH_MAX,
        .pool_bytes = td->o.use_thread ? POOL_BYTES_MAX : (uint32_t)pool_bytes,
    };
    int r = diskshare_open(o->domain_dir, o->vdev, &options, disk_complain, share);
    if (r == -EBUSY && !td->o.use_thread)
        log_err("fio: domzero: jobs that use one disk at the same time need thread=1\n");
    return r;
}

/* What a job asks for and cannot have, as a sentence; or NULL. */
static const char *job_refused(struct thread_data *td)
{
    if (td->files_index != 1)
        return "a job has one disk: nrfiles and filename with several are not possible";
    if (td->o.io_submit_mode == IO_MODE_OFFLOAD)
        return "io_submit_mode=offload is not possible: a disk is open once";
    if (fio_option_is_set(&td->o, mem_type)) /* fio notices, and then goes on without buffers */
        return "mem= is not possible: buffers come from the disk's pool";
    return NULL;
}

static int engine_setup(struct thread_data *td)
{
    const struct disk_options *o = td->eo;
    struct diskshare *share;
    struct dz_vbd_info info;
    if (!o->vdev) {
        log_err("fio: domzero: which disk? Say domzero_vdev=xvda\n");
        return 1;
    }
    if (!td->files_index)
        add_file(td, o->vdev, 0, 0);
    const char *cannot = job_refused(td);
    if (cannot) {
        log_err("fio: domzero: %s\n", cannot);
        return 1;
    }
    if (disk_open(td, 0, &share) < 0)
        return 1;
    diskshare_info(share, &info);
    diskshare_close(share, NULL);
    if (td_trim(td) && !info.discard) {
        log_err("fio: domzero: %s does not discard: there is no trim\n", o->vdev);
        return 1;
    }
    if (info.readonly && td_write(td)) {
        log_err("fio: domzero: %s is read-only\n", o->vdev);
        return 1;
    }
    td->files[0]->filetype = FIO_TYPE_BLOCK;
    td->files[0]->real_file_size = info.size_bytes;
    return 0;
}

static void engine_free(struct engine *e)
{
    free(e->transfer);
    free(e->event);
    free(e);
}

static struct engine *engine_new(unsigned iodepth)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->transfer = calloc(iodepth, sizeof(*e->transfer));
    e->event = calloc(iodepth, sizeof(struct diskshare_transfer *));
    e->transfer_count = iodepth;
    if (e->transfer && e->event)
        return e;
    engine_free(e);
    return NULL;
}

static int engine_init(struct thread_data *td)
{
    /* As fio will ask for them: all blocks, and what it may add to align them. */
    uint64_t buffers = td_max_bs(td) * td->o.iodepth + 2 * PAGE_BYTES;
    struct engine *e = engine_new(td->o.iodepth);
    if (!e)
        return ENOMEM;
    int r = disk_open(td, buffers <= POOL_BYTES_MAX ? buffers : 0, &e->share);
    if (r < 0) {
        engine_free(e);
        return -r;
    }
    diskshare_user_init(&e->user, e->share);
    td->io_ops_data = e;
    return 0;
}

static void engine_cleanup(struct thread_data *td)
{
    struct engine *e = td->io_ops_data;
    const struct disk_options *o = td->eo;
    struct dz_vbd_stats stats;
    if (!e)
        return;
    diskshare_user_deinit(&e->user);
    if (diskshare_close(e->share, &stats) && stats.reconnects) /* not to fio's output, which may be JSON */
        fprintf(stderr, "fio: domzero: %s: the backend came back %llu times, %llu requests were done again\n", o->vdev,
                (unsigned long long)stats.reconnects, (unsigned long long)stats.replayed);
    engine_free(e);
    td->io_ops_data = NULL;
}

/* fio keeps a file open; the disk is. */
static int engine_file_nothing(struct thread_data *td, struct fio_file *f)
{
    (void)td, (void)f;
    return 0;
}

static struct fio_option options[] = {
    {
        .name = "domzero_vdev",
        .lname = "domzero disk",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct disk_options, vdev),
        .help = "The virtual disk: xvda, or its number",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "domzero_domain_dir",
        .lname = "domzero domain",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct disk_options, domain_dir),
        .help = "The domain's directory; else $DOMZERO_DOMAIN_DIR, which `domzero exec` sets",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "domzero_spin_us",
        .lname = "domzero spinning",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct disk_options, spin_us),
        .help = "How long a wait polls before it sleeps, in microseconds",
        .def = "0",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {0},
};

/* fio looks for this name. */
__attribute__((visibility("default"))) struct ioengine_ops ioengine = {
    .name = "domzero",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL,
    .options = options,
    .option_struct_size = sizeof(struct disk_options),
    .setup = engine_setup,
    .init = engine_init,
    .cleanup = engine_cleanup,
    .open_file = engine_file_nothing,
    .close_file = engine_file_nothing,
    .invalidate = engine_file_nothing,
    .iomem_alloc = engine_iomem_alloc,
    .iomem_free = engine_iomem_free,
    .io_u_init = engine_io_u_init,
    .queue = engine_queue,
    .commit = engine_commit,
    .getevents = engine_getevents,
    .event = engine_event,
};
