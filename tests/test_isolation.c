/* SPDX-License-Identifier: MIT */
/* Two guests, two disks, side by side: guest B, with everything a process of domain B has, tries to open, map, notify,
 * read or write what is A's and what is dom0's. Each attempt must be refused by who serves it, and A must not notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <domzero/domzero.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "platform/platform.h"
#include "tests/harness.h"

#define MIB (1u << 20)

static struct world world;
static unsigned domid_a, domid_b;
static int go[2], end[2];
static pid_t guest_a;

static int guest_hold(const char *domain_dir, void *arg)
{
    (void)arg;
    struct dz_domain *dom;
    struct dz_vbd *disk;
    static unsigned char buffer[MIB], should[MIB];
    char byte = 0;
    close(end[1]);
    GUEST_CHECK(dz_domain_open(domain_dir, &dom) == 0);
    GUEST_CHECK(dz_vbd_open(dom, "xvda", WORLD_PATIENT, &disk) == 0);
    GUEST_CHECK(write(go[1], "", 1) == 1);
    GUEST_CHECK(read(end[0], &byte, 1) == 0);
    GUEST_CHECK(dz_vbd_read(disk, buffer, MIB, 0) == 0); /* still served, still A's own data */
    world_pattern(should, MIB, 0, 1);
    GUEST_CHECK(memcmp(buffer, should, MIB) == 0);
    struct dz_vbd_stats stats;
    dz_vbd_stats(disk, &stats);
    GUEST_CHECK(stats.errors == 0 && stats.reconnects == 0);
    dz_vbd_close(disk);
    dz_domain_close(dom);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    world_start(&world, NULL);
    world_image(&world, "a.img", MIB, 1);
    world_image(&world, "b.img", MIB, 2);
    domid_a = world_guest(&world, "a", "a.img", NULL);
    domid_b = world_guest(&world, "b", "b.img", NULL);
    assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
    guest_a = world_spawn(&world, domid_a, guest_hold, NULL);
    char byte;
    assert_int_equal(read(go[0], &byte, 1), 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(end[1]);
    assert_int_equal(world_wait(guest_a), 0);
    world_stop(&world);
    return 0;
}

static int open_as_b(const char *domain_dir, struct platform **p)
{
    const struct platform_where where = {.domain_dir = domain_dir};
    struct err e = {0};
    int r = platform_open(NULL, &where, NULL, p, &e);
    if (r < 0)
        fprintf(stderr, "guest: %s\n", e.text);
    return r;
}

static int guest_maps_foreign_grants(const char *domain_dir, void *arg)
{
    (void)arg;
    struct platform *p;
    GUEST_CHECK(open_as_b(domain_dir, &p) == 0);
    const uint16_t victims[] = {(uint16_t)domid_a, 0};
    for (unsigned v = 0; v < ARRAY_SIZE(victims); v++) {
        struct gntmap *map;
        struct frametable *frames;
        struct gntmap_page page;
        struct frame_extent *extent;
        unsigned char *address;
        if (platform_gntmap_get(p, victims[v], &map, &frames, NULL) < 0)
            continue; /* refused already */
        for (uint32_t gref = 0; gref < 2048; gref++)
            GUEST_CHECK(gntmap_map(map, gref, gref % 2, &page) != 0);
        for (uint32_t gfn = 0; gfn < 2048; gfn++)
            GUEST_CHECK(frametable_pin(frames, gfn, false, &extent, &address) < 0);
        platform_gntmap_put(p, victims[v]);
    }
    platform_close(p);
    return 0;
}

static int guest_binds_foreign_ports(const char *domain_dir, void *arg)
{
    (void)arg;
    struct platform *p;
    GUEST_CHECK(open_as_b(domain_dir, &p) == 0);
    for (uint32_t port = 0; port < 1024; port++) {
        struct evtchn ch = EVTCHN_NONE;
        GUEST_CHECK(platform_evtchn_bind_interdomain(p, (uint16_t)domid_a, port, &ch, NULL) < 0);
        GUEST_CHECK(platform_evtchn_bind_interdomain(p, 0, port, &ch, NULL) < 0);
        GUEST_CHECK(ch.wait_fd < 0 && ch.notify_fd < 0);
    }
    platform_close(p);
    return 0;
}

static int guest_administers(const char *domain_dir, void *arg)
{
    (void)arg;
    struct platform *p;
    GUEST_CHECK(open_as_b(domain_dir, &p) == 0);
    uint16_t domid;
    char dir[256];
    GUEST_CHECK(platform_domain_create(p, "mine", &domid, dir, sizeof(dir), NULL) == -EACCES);
    GUEST_CHECK(platform_domain_destroy(p, (uint16_t)domid_a, NULL) == -EACCES);
    GUEST_CHECK(platform_watch_domains(p) == -EACCES);
    platform_close(p);
    return 0;
}

static int guest_reads_foreign_nodes(const char *domain_dir, void *arg)
{
    (void)arg;
    struct platform *p;
    struct store_client *c;
    GUEST_CHECK(open_as_b(domain_dir, &p) == 0);
    GUEST_CHECK(platform_store_open(p, &c, NULL) == 0);
    char *value = NULL, **names = NULL;
    GUEST_CHECK(store_read(c, 0, &value, NULL, "/local/domain/%u/device/vbd/51712/ring-ref", domid_a) == -EACCES);
    GUEST_CHECK(store_read(c, 0, &value, NULL, "/local/domain/0/backend/vbd/%u/51712/params", domid_a) == -EACCES);
    GUEST_CHECK(store_directory(c, 0, &names, NULL, "/local/domain/%u/device/vbd/51712", domid_a) == -EACCES);
    GUEST_CHECK(store_write(c, 0, "6", "/local/domain/%u/device/vbd/51712/state", domid_a) == -EACCES);
    GUEST_CHECK(store_write(c, 0, "6", "/local/domain/0/backend/vbd/%u/51712/state", domid_a) == -EACCES);
    GUEST_CHECK(store_write(c, 0, "raw:/etc/passwd", "/local/domain/0/backend/vbd/%u/51712/params", domid_b) ==
                -EACCES);
    GUEST_CHECK(store_write(c, 0, "w", "/local/domain/0/backend/vbd/%u/51712/mode", domid_b) == -EACCES);
    GUEST_CHECK(store_write(c, 0, "x", "/local/domain/%u/anything", domid_a) == -EACCES);
    GUEST_CHECK(store_write(c, 0, "x", "/anything") == -EACCES);
    GUEST_CHECK(store_introduce(c, domid_a, 1, 1) < 0);
    GUEST_CHECK(store_release(c, domid_a) < 0);
    GUEST_CHECK(!value && !names);
    store_client_close(c);
    platform_close(p);
    return 0;
}

/* What the backend obeys, of its own disk as of a foreign one; and what would keep its device from being removed. */
static int guest_steers_its_backend(const char *domain_dir, void *arg)
{
    (void)arg;
    static const char *const keys[] = {"domzero/set/id",
                                       "domzero/set/size",
                                       "domzero/set/readonly",
                                       "domzero/set/iops",
                                       "domzero/set/dma",
                                       "domzero/set",
                                       "domzero/paused",
                                       "domzero/report-after",
                                       "domzero/iops",
                                       "domzero/bytes",
                                       "domzero/max-queues",
                                       "domzero/on-error",
                                       "domzero/offset",
                                       "domzero/size",
                                       "domzero/dma",
                                       "domzero/persistent",
                                       "domzero/host-alignment",
                                       "domzero/done",
                                       "domzero/error",
                                       "domzero/anything",
                                       "domzero",
                                       "discard-enable",
                                       "device-type",
                                       "online",
                                       "feature-persistent",
                                       "state",
                                       "error",
                                       "multi-queue-max-queues"};
    struct platform *p;
    struct store_client *c;
    GUEST_CHECK(open_as_b(domain_dir, &p) == 0);
    GUEST_CHECK(platform_store_open(p, &c, NULL) == 0);
    const unsigned domids[] = {domid_a, domid_b};
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        for (unsigned d = 0; d < ARRAY_SIZE(domids); d++) {
            GUEST_CHECK(store_write(c, 0, "1", "/local/domain/0/backend/vbd/%u/51712/%s", domids[d], keys[i]) ==
                        -EACCES);
            int r = store_rm(c, 0, "/local/domain/0/backend/vbd/%u/51712/%s", domids[d], keys[i]);
            GUEST_CHECK(r == -EACCES || r == -ENOENT);
        }
    GUEST_CHECK(store_rm(c, 0, "/local/domain/0/backend/vbd/%u", domid_b) == -EACCES);
    store_client_close(c);
    platform_close(p);
    return 0;
}

static int guest_as_nobody(const char *domain_dir, void *arg)
{
    (void)arg;
    char path[256];
    static const char *const sockets[] = {"hypervisor.sock", "xenstored.sock", "../../hypervisor.sock",
                                          "../../xenstored/socket"};
    GUEST_CHECK(setgid(65534) == 0 && setuid(65534) == 0);
    for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        snprintf(path, sizeof(path), "%s/%s", domain_dir, sockets[i]);
        GUEST_CHECK(strlen(path) < sizeof(a.sun_path));
        strcpy(a.sun_path, path);
        int fd = socket(AF_UNIX, i % 2 ? SOCK_STREAM : SOCK_SEQPACKET, 0);
        GUEST_CHECK(connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EACCES);
        close(fd);
    }
    return 0;
}

static void try_as_b(int (*attempt)(const char *, void *))
{
    assert_int_equal(world_wait(world_spawn(&world, domid_b, attempt, NULL)), 0);
    assert_int_equal(kill(guest_a, 0), 0);
}

static void test_a_guest_cannot_map_what_was_granted_by_another(void **state)
{
    (void)state;
    try_as_b(guest_maps_foreign_grants);
}

static void test_a_guest_cannot_bind_a_port_meant_for_another(void **state)
{
    (void)state;
    try_as_b(guest_binds_foreign_ports);
}

static void test_a_guest_cannot_administer_domains(void **state)
{
    (void)state;
    try_as_b(guest_administers);
}

static void test_lesson_175_178_a_guest_cannot_read_or_write_foreign_nodes_nor_its_own_backends(void **state)
{
    (void)state;
    try_as_b(guest_reads_foreign_nodes);
}

static void test_lesson_175_what_steers_a_backend_is_not_a_guests_to_write(void **state)
{
    (void)state;
    try_as_b(guest_steers_its_backend);
}

static mode_t mode_of(const char *name)
{
    struct stat st;
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", world.run, name);
    if (stat(path, &st))
        fail_msg("%s: %s", path, strerror(errno));
    return st.st_mode & 0777;
}

static void test_what_replaces_the_role_and_what_reads_its_numbers_is_dom0s_alone(void **state)
{
    (void)state;
    assert_int_equal(mode_of("domzerod.sock"), 0600);
    assert_int_equal(mode_of("blk-stats.sock"), 0600);
}

static void test_another_user_cannot_become_a_guest(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* needs a second user to try with */
    try_as_b(guest_as_nobody);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_cannot_map_what_was_granted_by_another),
        cmocka_unit_test(test_a_guest_cannot_bind_a_port_meant_for_another),
        cmocka_unit_test(test_a_guest_cannot_administer_domains),
        cmocka_unit_test(test_lesson_175_178_a_guest_cannot_read_or_write_foreign_nodes_nor_its_own_backends),
        cmocka_unit_test(test_lesson_175_what_steers_a_backend_is_not_a_guests_to_write),
        cmocka_unit_test(test_what_replaces_the_role_and_what_reads_its_numbers_is_dom0s_alone),
        cmocka_unit_test(test_another_user_cannot_become_a_guest),
    };
    return cmocka_run_group_tests_name("isolation", tests, setup, teardown);
}
