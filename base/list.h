/* SPDX-License-Identifier: MIT */
/* base/list.h: an intrusive doubly linked ring. A node that is in no list points at itself, so unlinking twice
 * is harmless. The list owns nothing.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/util.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_append(struct list *head, struct list *node)
{
    list_insert_before(head, node);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)

/* Safe against removal of the current entry. The user declares `it` and `tmp` as `type *`. */
#define list_foreach_safe(it, tmp, head, member)                    \
    for (it = list_entry((head)->next, __typeof__(*it), member),    \
        tmp = list_entry(it->member.next, __typeof__(*it), member); \
         &it->member != (head); it = tmp, tmp = list_entry(it->member.next, __typeof__(*it), member))

#define list_foreach(it, head, member)                                                  \
    for (it = list_entry((head)->next, __typeof__(*it), member); &it->member != (head); \
         it = list_entry(it->member.next, __typeof__(*it), member))

#endif
