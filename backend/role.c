/* SPDX-License-Identifier: MIT */
#include "backend/role.h"

#include <string.h>

const struct role roles[] = {
    {.name = "hypervisor", .run = role_hypervisor_run, .policy = ROLE_FATAL},
    {.name = "store", .run = role_store_run, .policy = ROLE_FATAL},
    {.name = "blk", .run = role_blk_run, .policy = ROLE_RESTART},
};
const unsigned role_count = ARRAY_SIZE(roles);

const struct role *role_find(const char *name)
{
    for (unsigned i = 0; i < role_count; i++)
        if (strcmp(roles[i].name, name) == 0)
            return &roles[i];
    return NULL;
}

void role_ready(const struct role_options *o)
{
    ssize_t ignored = o->ready_fd < 0 ? 0 : write(o->ready_fd, "", 1); /* after a restart nobody reads it */
    (void)ignored;
}
