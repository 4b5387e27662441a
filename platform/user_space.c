/* SPDX-License-Identifier: MIT */
#include "platform/user_space.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define RESERVE_BYTES ((size_t)256 << 20) /* at a time: some guests' memory. A mapping more for each such */

struct range {
    unsigned char *address;
    size_t bytes;
};

static pthread_mutex_t space_lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *space_free; /* by address, no two of them touch */
static size_t space_count, space_capacity;

static int space_reserve_row(void)
{
    if (space_count < space_capacity)
        return 0;
    size_t capacity = space_capacity ? space_capacity * 2 : 16;
    struct range *bigger = reallocarray(space_free, capacity, sizeof(*bigger));
    if (!bigger)
        return -ENOMEM;
    space_free = bigger;
    space_capacity = capacity;
    return 0;
}

/* Where no row can be had for it, the range is never used again. */
static void space_give(struct range given)
{
    size_t i = 0;
    while (i < space_count && space_free[i].address < given.address)
        i++;
    struct range *before = i > 0 ? &space_free[i - 1] : NULL, *behind = i < space_count ? &space_free[i] : NULL;
    bool joins_before = before && before->address + before->bytes == given.address;
    bool joins_behind = behind && given.address + given.bytes == behind->address;
    if (joins_before) {
        before->bytes += given.bytes + (joins_behind ? behind->bytes : 0);
        if (joins_behind)
            memmove(behind, behind + 1, (--space_count - i) * sizeof(*behind));
    } else if (joins_behind) {
        *behind = (struct range){given.address, given.bytes + behind->bytes};
    } else if (!space_reserve_row()) {
        memmove(&space_free[i + 1], &space_free[i], (space_count++ - i) * sizeof(*space_free));
        space_free[i] = given;
    }
}

static unsigned char *space_take(size_t bytes)
{
    for (size_t i = 0; i < space_count; i++) {
        struct range *r = &space_free[i];
        if (r->bytes < bytes)
            continue;
        unsigned char *address = r->address;
        r->address += bytes;
        r->bytes -= bytes;
        if (r->bytes == 0)
            memmove(r, r + 1, (--space_count - i) * sizeof(*r));
        return address;
    }
    return NULL;
}

static void *place_nothing(void *at, size_t bytes)
{
    return mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);
}

/* Under the lock. NULL with errno. */
static unsigned char *space_place(size_t bytes)
{
    unsigned char *address = space_take(bytes);
    if (address)
        return address;
    const size_t reserve_bytes = MAX(bytes, RESERVE_BYTES);
    void *p = place_nothing(NULL, reserve_bytes);
    if (p == MAP_FAILED)
        return NULL;
    space_give((struct range){p, reserve_bytes});
    address = space_take(bytes);
    if (!address)
        errno = ENOMEM;
    return address;
}

/* Where it fails nobody knows what is at the place now: it is not used again. */
void *user_space_map(int fd, uint32_t frame_count, bool readonly)
{
    const size_t bytes = (size_t)frame_count * PAGE_BYTES;
    const int prot = PROT_READ | (readonly ? 0 : PROT_WRITE);
    pthread_mutex_lock(&space_lock);
    unsigned char *address = space_place(bytes);
    void *p = address ? mmap(address, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0) : MAP_FAILED;
    const int error = errno;
    pthread_mutex_unlock(&space_lock);
    fd_closep(&fd);
    errno = error;
    return p == MAP_FAILED ? NULL : p;
}

/* Where the kernel has no mapping left for the reservation the place is not used again. */
void user_space_unmap(void *address, uint32_t frame_count)
{
    const size_t bytes = (size_t)frame_count * PAGE_BYTES;
    pthread_mutex_lock(&space_lock);
    if (place_nothing(address, bytes) != MAP_FAILED)
        space_give((struct range){address, bytes});
    pthread_mutex_unlock(&space_lock);
}
