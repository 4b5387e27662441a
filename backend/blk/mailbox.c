/* SPDX-License-Identifier: MIT */
#include "backend/blk/mailbox.h"

#include <assert.h>
#include <sys/eventfd.h>

int mailbox_init(struct mailbox *m)
{
    list_init(&m->letters);
    m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->fd < 0)
        return -errno;
    return -pthread_mutex_init(&m->lock, NULL);
}

void mailbox_deinit(struct mailbox *m)
{
    close(m->fd);
    pthread_mutex_destroy(&m->lock);
}

void letter_init(struct letter *l)
{
    list_init(&l->link);
    l->bits = 0;
}

/* The descriptor is readable exactly while the list is not empty; both change under the lock. */
static void mailbox_signal(struct mailbox *m)
{
    uint64_t one = 1;
    ssize_t n = write(m->fd, &one, sizeof(one));
    assert(n == sizeof(one));
}

static void mailbox_unsignal(struct mailbox *m)
{
    uint64_t count;
    ssize_t n = read(m->fd, &count, sizeof(count));
    assert(n == sizeof(count));
}

void mailbox_post(struct mailbox *m, struct letter *l, uint32_t bits)
{
    assert(bits);
    pthread_mutex_lock(&m->lock);
    if (!l->bits) {
        if (list_empty(&m->letters))
            mailbox_signal(m);
        list_append(&m->letters, &l->link);
    }
    l->bits |= bits;
    pthread_mutex_unlock(&m->lock);
}

struct letter *mailbox_take(struct mailbox *m, uint32_t *bits)
{
    struct letter *l = NULL;
    pthread_mutex_lock(&m->lock);
    if (!list_empty(&m->letters)) {
        l = list_entry(m->letters.next, struct letter, link);
        list_remove(&l->link);
        *bits = l->bits;
        l->bits = 0;
        if (list_empty(&m->letters))
            mailbox_unsignal(m);
    }
    pthread_mutex_unlock(&m->lock);
    return l;
}
