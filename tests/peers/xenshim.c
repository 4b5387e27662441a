/* SPDX-License-Identifier: MIT */
/* tests/peers/xenshim.c: what Xen answers to a xenstored, without Xen. Preloaded (LD_PRELOAD) into the reference
 * servers of Debian's xen-utils-4.17, xenstored in C and oxenstored, by scripts/peer-store.sh; no part of domzero is
 * linked with it.
 *
 * Everything lives in the directory $XENSHIM_DIR, through which a test is the guest:
 *   ring.<domid>  the page that a guest of that domid grants for its store (struct xenstore_domain_interface). Whoever
 *                 comes first makes it.
 *   port          a FIFO: the guest's "notify". Four bytes, the server's port: XENSHIM_PORT_GUEST + domid.
 *   kick.<domid>  a FIFO: the server's "notify", a byte each. Lost while the FIFO is full, when the guest is told
 * anyway. dead.<domid>  where this exists the domain is dying. The server asks when it is told so: port
 * XENSHIM_PORT_DOM_EXC. Domains exist as soon as somebody asks for them. All that the reference servers have below
 * /var/run/xenstored, which oxenstored cannot be told to have elsewhere, is in the directory, too.
 *
 * Trusts the servers, its directory and the test; nothing here is meant to face anybody else. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define XENSHIM_PORT_DOM_EXC 900u
#define XENSHIM_PORT_GUEST   1000u
#define PORTS_MAX            (XENSHIM_PORT_GUEST + 0x8000u)
#define PAGE_BYTES           4096u
#define EXPORT               __attribute__((visibility("default")))

/* What others declare is defined here, with names of parameters that are ours. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

static int ports_fd = -1;
static int kick_fds[PORTS_MAX]; /* by port; 0: not bound */

static const char *dir(void)
{
    const char *d = getenv("XENSHIM_DIR");
    if (d)
        return d;
    fprintf(stderr, "xenshim: XENSHIM_DIR is not set\n");
    abort();
}

static void dir_path(char path[PATH_MAX], const char *name, unsigned domid)
{
    snprintf(path, PATH_MAX, "%s/%s.%u", dir(), name, domid);
}

/* What hides behind a name that is ours; the library's own is the next one of that name. */
#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

/* -- domains */

static int domain_is_dying(uint32_t domid)
{
    char path[PATH_MAX];
    dir_path(path, "dead", domid);
    return access(path, F_OK) == 0;
}

EXPORT xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dom_build, unsigned flags)
{
    (void)logger, (void)dom_build, (void)flags;
    return (xc_interface *)dir(); /* any pointer that is one */
}

EXPORT int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

EXPORT int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned count, xc_dominfo_t *out)
{
    (void)xch;
    if (count == 0)
        return 0;
    memset(out, 0, sizeof(*out));
    out->domid = first;
    out->dying = domain_is_dying(first);
    return 1;
}

EXPORT int xc_domain_getinfolist(xc_interface *xch, uint32_t first, unsigned count, xc_domaininfo_t *out)
{
    (void)xch;
    if (count == 0)
        return 0;
    memset(out, 0, sizeof(*out));
    out->domain = (domid_t)first;
    out->flags = domain_is_dying(first) ? XEN_DOMINF_dying : 0;
    return 1;
}

/* -- a guest's page: xenstored maps the grant, oxenstored the frame */

static void *ring_map(uint32_t domid)
{
    char path[PATH_MAX];
    dir_path(path, "ring", domid);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    void *page = MAP_FAILED;
    if (ftruncate(fd, PAGE_BYTES) == 0)
        page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}

EXPORT xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return (xengnttab_handle *)dir();
}

EXPORT int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

EXPORT int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
    (void)xgt, (void)count;
    return 0;
}

EXPORT void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
    (void)xgt, (void)ref, (void)prot;
    return ring_map(domid);
}

EXPORT int xengnttab_unmap(xengnttab_handle *xgt, void *start, uint32_t count)
{
    (void)xgt;
    return munmap(start, (size_t)count * PAGE_BYTES);
}

EXPORT void *xc_map_foreign_range(xc_interface *xch, uint32_t domid, int size, int prot, unsigned long frame)
{
    (void)xch, (void)size, (void)prot, (void)frame;
    return ring_map(domid);
}

/* -- event channels */

EXPORT xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/port", dir());
    if (mkfifo(path, 0600) < 0 && errno != EEXIST)
        return NULL;
    ports_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return ports_fd < 0 ? NULL : (xenevtchn_handle *)dir();
}

EXPORT int xenevtchn_close(xenevtchn_handle *xce)
{
    (void)xce;
    return close(ports_fd);
}

EXPORT int xenevtchn_fd(xenevtchn_handle *xce)
{
    (void)xce;
    return ports_fd;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
    (void)xce, (void)remote;
    char path[PATH_MAX];
    unsigned port = XENSHIM_PORT_GUEST + domid;
    dir_path(path, "kick", domid);
    if (port >= PORTS_MAX || (mkfifo(path, 0600) < 0 && errno != EEXIST))
        return -1;
    if (kick_fds[port] == 0)
        kick_fds[port] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return (int)port;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned virq)
{
    (void)xce, (void)virq; /* DOM_EXC: none else is asked for */
    return XENSHIM_PORT_DOM_EXC;
}

EXPORT int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce;
    if (port >= PORTS_MAX || kick_fds[port] <= 0)
        return 0;
    close(kick_fds[port]);
    kick_fds[port] = 0;
    return 0;
}

EXPORT int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce;
    if (port < PORTS_MAX && kick_fds[port] > 0 && write(kick_fds[port], "", 1) < 0 && errno != EAGAIN)
        return -1;
    return 0;
}

EXPORT xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    (void)xce;
    uint32_t port;
    return read(ports_fd, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

EXPORT int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

/* -- files of the machine that are not here, or not for this user */

/* xsd_port and xsd_kva of /proc/xen: domain 0's own port and page. Negative where it is another file. */
static int proc_xen_open(const char *path)
{
    bool port = strstr(path, "/xsd_port") != NULL;
    if (!port && !strstr(path, "/xsd_kva"))
        return -1;
    int fd = memfd_create("xsd", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    bool made =
        port ? write(fd, "1", 1) == 1 : ftruncate(fd, PAGE_BYTES) == 0; /* no newline: oxenstored reads digits */
    lseek(fd, 0, SEEK_SET);
    return made ? fd : -1;
}

#define OPEN_BODY(name, path, flags)                                            \
    va_list more;                                                               \
    va_start(more, flags);                                                      \
    mode_t mode = (flags) & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                               \
    int fd = proc_xen_open(path);                                               \
    return fd >= 0 ? fd : NEXT(name)(path, flags, mode);

EXPORT int open(const char *path, int flags, ...){OPEN_BODY(open, path, flags)}

EXPORT int open64(const char *path, int flags, ...)
{
    OPEN_BODY(open64, path, flags)
}

/* `path`, or where it is what lies below the directory of the machine's own xenstored: that in ours, in `moved`. */
static const char *path_moved(const char *path, char moved[PATH_MAX])
{
    static const char machine[] = "/var/run/xenstored";
    if (strncmp(path, machine, strlen(machine)) != 0)
        return path;
    snprintf(moved, PATH_MAX, "%s%s", dir(), path + strlen(machine));
    return moved;
}

EXPORT int mkdir(const char *path, mode_t mode)
{
    char moved[PATH_MAX];
    return NEXT(mkdir)(path_moved(path, moved), mode);
}

EXPORT int unlink(const char *path)
{
    char moved[PATH_MAX];
    return NEXT(unlink)(path_moved(path, moved));
}

EXPORT int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t length)
{
    const struct sockaddr_un *un = (const void *)address.__sockaddr__;
    struct sockaddr_un ours = {.sun_family = AF_UNIX};
    char moved[PATH_MAX];
    if (un->sun_family != AF_UNIX)
        return NEXT(bind)(fd, address, length);
    const char *path = path_moved(un->sun_path, moved);
    if (strlen(path) >= sizeof(ours.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(ours.sun_path, path);
    return NEXT(bind)(fd, (const struct sockaddr *)&ours, sizeof(ours));
}

/* More descriptors than an ordinary user may have: it has to do with those that it has. */
EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *wanted)
{
    int r = NEXT(setrlimit)(resource, wanted);
    return r < 0 && errno == EPERM ? 0 : r;
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
