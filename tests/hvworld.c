/* SPDX-License-Identifier: MIT */
#include "tests/hvworld.h"

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "hypervisor/server.h"

static void serve(struct hvworld *w, int ready_fd, int stop_fd, void (*prepare)(struct hypervisor *h))
{
    struct hypervisor *h;
    struct err e;
    if (hypervisor_new(w->run_dir, &h, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        _exit(1);
    }
    if (prepare)
        prepare(h);
    if (write(ready_fd, "", 1) != 1)
        _exit(1);
    struct pollfd p[2] = {{.fd = hypervisor_fd(h), .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    while (p[1].revents == 0) {
        if ((poll(p, 2, -1) < 0 && errno != EINTR) || hypervisor_step(h, 64) < 0)
            _exit(2);
    }
    hypervisor_free(h);
    exit(0);
}

void hvworld_start(struct hvworld *w, void (*prepare)(struct hypervisor *h))
{
    snprintf(w->run_dir, sizeof(w->run_dir), "/tmp/hvworld.XXXXXX");
    assert_non_null(mkdtemp(w->run_dir));
    int ready[2], stop[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(stop), 0);
    fflush(NULL);
    w->pid = fork();
    assert_true(w->pid >= 0);
    if (w->pid == 0) {
        close(ready[0]);
        close(stop[1]);
        serve(w, ready[1], stop[0], prepare);
    }
    close(ready[1]);
    close(stop[0]);
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    w->stop_fd = stop[1];
}

void hvworld_stop(struct hvworld *w)
{
    int status;
    close(w->stop_fd);
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    assert_int_equal(status, 0);
    assert_int_equal(rmdir(w->run_dir), 0);
}

unsigned hvworld_fd_count(const struct hvworld *w)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", w->pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    unsigned count = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

const char *hvworld_socket(const struct hvworld *w, unsigned domid, char out[128])
{
    if (domid)
        snprintf(out, 128, "%s/dom/%u/hypervisor.sock", w->run_dir, domid);
    else
        snprintf(out, 128, "%s/hypervisor.sock", w->run_dir);
    return out;
}
