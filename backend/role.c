/* SPDX-License-Identifier: MIT */
#include "backend/role.h"

#include <fcntl.h>
#include <string.h>

const struct role roles[] = {
    {.name = "hypervisor", .run = role_hypervisor_run, .policy = ROLE_FATAL},
    {.name = "store", .run = role_store_run, .policy = ROLE_RESTART, .goes_on = true},
    {.name = "blk", .run = role_blk_run, .policy = ROLE_RESTART, .stands_by = true},
};
const unsigned role_count = ARRAY_SIZE(roles);

const struct role *role_find(const char *name)
{
    for (unsigned i = 0; i < role_count; i++)
        if (strcmp(roles[i].name, name) == 0)
            return &roles[i];
    return NULL;
}

void role_detach(int log_fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        close(null);
    }
    dup2(log_fd, STDERR_FILENO);
    close(log_fd);
}

void role_ready(const struct role_options *o)
{
    if (o->log_fd >= 0 && !o->standby)
        role_detach(o->log_fd);
    ssize_t ignored = o->ready_fd < 0 ? 0 : write(o->ready_fd, "", 1); /* after a restart nobody reads it */
    (void)ignored;
}

int role_standby(const struct role_options *o)
{
    char byte;
    if (o->log_fd >= 0)
        role_detach(o->log_fd);
    if (write(o->ready_fd, "", 1) != 1)
        return -ECANCELED;
    return read(o->stop_fd, &byte, 1) == 1 ? 0 : -ECANCELED; /* signals are blocked, or end the process */
}
