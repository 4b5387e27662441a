/* SPDX-License-Identifier: MIT */
#include "base/unixsock.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/burial.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#define FDS_A_MESSAGE_MAX 253 /* SCM_MAX_FD of the kernel, which no header tells */

static int address_fill(struct sockaddr_un *a, const char *path, struct err *e)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof(a->sun_path))
        return err_set(e, -ENAMETOOLONG,
                       "socket path %s has %zu characters, a unix socket takes %zu: choose a shorter run directory",
                       path, length, sizeof(a->sun_path) - 1);
    memcpy(a->sun_path, path, length + 1);
    return 0;
}

int unixsock_listen(const char *path, int type, mode_t mode, struct err *e)
{
    struct sockaddr_un a;
    size_t length = strlen(path);
    int r = address_fill(&a, path, e);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(e, -errno, "socket: %s", strerror(errno));
    if (access(path, F_OK) == 0 && length + 1 < sizeof(a.sun_path))
        strcpy(a.sun_path + length, "~");
    unlink(a.sun_path);
    mode_t old = umask(0777 & ~mode); /* the file is born with its mode: no moment in which others could connect */
    r = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
    umask(old);
    if (r < 0)
        return err_set(e, r, "cannot make the socket %s: %s", path, strerror(-r));
    int off = 0;
    setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)); /* inherited by what it accepts */
    if (listen(fd, SOMAXCONN) == 0 && (!a.sun_path[length] || rename(a.sun_path, path) == 0))
        return take_fd(&fd);
    r = err_set(e, -errno, "cannot listen on %s: %s", path, strerror(errno));
    unlink(a.sun_path);
    return r;
}

int unixsock_connect(const char *path, int type, struct err *e)
{
    struct sockaddr_un a;
    int r = address_fill(&a, path, e);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(e, -errno, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return err_set(e, -errno, "cannot connect to %s: %s", path, strerror(errno));
    return take_fd(&fd);
}

int unixsock_accept(int listen_fd, uid_t *peer_uid, pid_t *peer_pid)
{
    _cleanup_close_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct ucred cred;
    socklen_t length = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
        return -errno;
    if (peer_uid)
        *peer_uid = cred.uid;
    if (peer_pid)
        *peer_pid = cred.pid;
    return take_fd(&fd);
}

int unixsock_send(int fd, const void *data, size_t length, const int *fds, unsigned fd_count, int flags)
{
    if (fd_count > UNIXSOCK_FDS_MAX)
        return -EINVAL;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * UNIXSOCK_FDS_MAX)];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = length};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    ssize_t n;
    do
        n = sendmsg(fd, &msg, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static void fds_collect(struct msghdr *msg, int *fds, unsigned *fd_count)
{
    unsigned room = fds ? *fd_count : 0, got = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int passed;
            memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (got < room)
                fds[got++] = passed;
            else
                close(passed);
        }
    }
    if (fd_count)
        *fd_count = got;
}

ssize_t unixsock_recv(int fd, void *data, size_t size, int *fds, unsigned *fd_count, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * UNIXSOCK_FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = fds ? control.bytes : NULL,
                         .msg_controllen = fds ? sizeof(control) : 0};
    ssize_t n;
    do
        n = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    fds_collect(&msg, fds, fd_count);
    if (msg.msg_flags & MSG_TRUNC) {
        for (unsigned i = 0; fds && i < *fd_count; i++)
            close(fds[i]);
        return -EMSGSIZE;
    }
    return n;
}

/* ---- a server of hostile peers ---- */

bool unixsock_fds_may_come(int fd)
{
    int pass = 1;
    socklen_t length = sizeof(pass);
    return getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &pass, &length) < 0 || pass;
}

/* *came: there was a message, an empty one or none but descriptors included. Known where SO_PASSCRED is set. */
static ssize_t recv_bury(int fd, void *data, size_t size, int flags, bool *came)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * FDS_A_MESSAGE_MAX) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
    ssize_t n;
    do
        n = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *came = n > 0 || (n == 0 && msg.msg_controllen > 0);
    if (n < 0)
        return -errno;
    int fds[FDS_A_MESSAGE_MAX];
    unsigned fd_count = FDS_A_MESSAGE_MAX;
    fds_collect(&msg, fds, &fd_count);
    fds_bury(fds, fd_count);
    return fd_count ? -EPERM : msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
}

ssize_t unixsock_recv_plain(int fd, void *data, size_t size, int flags)
{
    bool came;
    return recv_bury(fd, data, size, flags, &came);
}

void unixsock_close_served(int *fd)
{
    char ignored[4096];
    int type = 0, on = 1;
    socklen_t length = sizeof(type);
    bool came = *fd >= 0 && unixsock_fds_may_come(*fd);
    if (came) {
        shutdown(*fd, SHUT_RD); /* nothing more comes in: this ends */
        getsockopt(*fd, SOL_SOCKET, SO_TYPE, &type, &length);
    }
    if (type == SOCK_SEQPACKET) /* tells an empty message from the end; a stream has no empty ones */
        setsockopt(*fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    while (came)
        (void)recv_bury(*fd, ignored, sizeof(ignored), MSG_DONTWAIT, &came);
    fd_closep(fd);
}

void unixsock_close_listener(int *fd)
{
    int unaccepted;
    if (*fd >= 0 && unixsock_fds_may_come(*fd)) {
        shutdown(*fd, SHUT_RD); /* nobody connects any more */
        while ((unaccepted = accept4(*fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
            unixsock_close_served(&unaccepted);
    }
    fd_closep(fd);
}
