/* SPDX-License-Identifier: MIT */
/* tests/trap_page.h: a page whose first access stops the thread that makes it: what a hostile guest hands to a system
 * call to have the kernel wait for it. */
#ifndef TESTS_TRAP_PAGE_H
#define TESTS_TRAP_PAGE_H

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"

/* The descriptor by which it is let go; -1 where the kernel does not let us. */
static inline int trap_page(void **page)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API};
    *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register area = {{(uintptr_t)*page, PAGE_BYTES}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (fd < 0 || *page == MAP_FAILED || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &area)) {
        fd_closep(&fd);
        return -1;
    }
    return fd;
}

static inline void trap_let_go(int trap_fd, void *page)
{
    struct uffdio_zeropage zero = {.range = {(uintptr_t)page, PAGE_BYTES}};
    assert_int_equal(ioctl(trap_fd, UFFDIO_ZEROPAGE, &zero), 0);
}

#endif
