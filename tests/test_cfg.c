/* SPDX-License-Identifier: MIT */
/* The parse stage of `domzero create`: what a good file says, and for each bad one the sentence that its author gets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <stdio.h>

#include "tools/vmcfg.h"

static int parse(const char *text, struct vmcfg *out, struct err *e)
{
    return vmcfg_read_text(text, strlen(text), "bad.cfg", "/srv/guests", out, e);
}

#define NAME "name = \"g\"\n"

static const struct {
    const char *text, *sentence;
} bad[] = {
    {"", "no name"},
    {"disk = [ \"/d.img,raw,xvda,rw\" ]", "no name"},
    {"name = \"g", "lexical error"},                           /* torn in a string … */
    {NAME "disk = [ \"/d.img,raw,xvda,rw\",", "syntax error"}, /* … in a list … */
    {NAME "disk", "syntax error"},                             /* … behind a key */
    {NAME "disk = [ \"/d.img,raw,xv", "lexical error"},
    {"name = [ \"g\" ]", "name is a string"},
    {"name = \"\"", "cannot be a domain's name"},
    {"name = \"../etc\"", "cannot be a domain's name"},
    {"name = \"a b\"", "cannot be a domain's name"},
    {"name = \"17\"", "taken for a domid"},
    {"name = \"0x10\"", "taken for a domid"},
    {"name = \"--json\"", "begins like an option"},
    {"name = \"..\"", "begins like an option or a path"},
    {"name = \"Domain-0\"", "dom0's name"},
    {"name = \"a234567890123456789012345678901234567890123456789012345678901234\"", "cannot be a domain's name"},
    {NAME "memry = 128", "bad.cfg:2: nobody knows the key \"memry\"; the nearest is \"memory\""},
    {NAME "\n# c\ndisks = []", "bad.cfg:4: nobody knows the key \"disks\"; the nearest is \"disk\""},
    {NAME "diskoptions = [ \"a\" ]", "the nearest is \"disk_options\""},
    {"nmae = \"g\"", "the nearest is \"name\""},
    {NAME "memory = 1; foo = 2", "bad.cfg:2: nobody knows the key \"foo\""},
    {NAME "disk = \"/d.img,raw,xvda,rw\"", "disk is a list"},
    {NAME "disk = [ [ \"/d.img,raw,xvda,rw\" ] ]", "is no string"},
    {NAME "disk = [ \"\" ]", "no vdev specified"},
    {NAME "disk = [ \",raw,xvda,rw\" ]", "has no target"},
    {NAME "disk = [ \"format=raw,vdev=xvda\" ]", "no target specified"},
    {NAME "disk = [ \"vdev=xvda,target=/d.img\" ]", "does not say its format, which is always given and never probed"},
    {NAME "disk = [ \"/d.img,,xvda,rw\" ]", "does not say its format"},
    {NAME "disk = [ \"format=,vdev=xvda,target=/d.img\" ]", "does not say its format"},
    {NAME "disk = [ \"vdev=xvda,target=/d.img,format=raw\" ]", "does not say its format"}, /* all of it the target */
    {NAME "disk = [ \"/d.img,xvda,rw\" ]", "unknown value for format: near `xvda'"},
    {NAME "disk = [ \"/d.img,raw\" ]", "no vdev specified"},
    {NAME "disk = [ \"/d.img,vmdk7,xvda,rw\" ]", "unknown value for format: near `vmdk7'"},
    {NAME "disk = [ \"/d.img,raw,xvda,maybe\" ]", "unknown value for access"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw,colour=red\" ]", "unknown parameter: near `colour="},
    {NAME "disk = [ \"/d.img,raw,foo,rw\" ]", "\"foo\" is no virtual device"},
    {NAME "disk = [ \"/d.img,raw,xvda0,rw\" ]", "\"xvda0\" is no virtual device"},
    {NAME "disk = [ \"/d.img,raw,hde,rw\" ]", "\"hde\" is no virtual device"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw\", \"/e.img,raw,xvda,rw\" ]", "two disks are xvda"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw\", \"/e.img,raw,51712,rw\" ]", "two disks are 51712"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw,vdev=xvdb\" ]", "vdev respecified"},
    {NAME "disk = [ \"format=empty,vdev=xvda,access=ro,devtype=cdrom,target=/d.img\" ]", "without a medium"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw,script=block-nbd\" ]", "hotplug scripts"},
    {NAME "disk = [ \"/d.img,raw,xvda,rw,backend=storage\" ]", "served by domain 0"},
    {NAME "disk_options = [ \"xvda,dma=copy\" ]", "no virtual device of a disk"},
#define DISK NAME "disk = [ \"/d.img,raw,xvda,rw\" ]\n"
    {DISK "disk_options = [ \"xvdb,dma=copy\" ]", "no virtual device of a disk"},
    {DISK "disk_options = [ \"dma=copy\" ]", "no virtual device of a disk"},
    {DISK "disk_options = [ \"\" ]", "no virtual device of a disk"},
    {DISK "disk_options = \"xvda,dma=copy\"", "disk_options is a list"},
    {DISK "disk_options = [ \"xvda,offset=-1\" ]", "offset=-1: a number of bytes"},
    {DISK "disk_options = [ \"xvda,iops=many\" ]", "iops=many: a number"},
    {DISK "disk_options = [ \"xvda,bytes=1X\" ]", "bytes=1X: a number of bytes"},
    {DISK "disk_options = [ \"xvda,iops-burst=5\" ]", "disk_options of xvda: iops-burst says nothing without iops"},
    {DISK "disk_options = [ \"xvda,bytes-burst=4K,bytes=1M\" ]", "less than one request"},
    {DISK "disk_options = [ \"xvda,poll=Often\" ]", "interrupt, adaptive, poll or default"},
    {DISK "disk_options = [ \"xvda,offset=1000\" ]", "offset=1000: a multiple of 512 bytes"},
    {DISK "disk_options = [ \"xvda,offset=1X\" ]", "offset=1X: a number of bytes"},
    {DISK "disk_options = [ \"xvda,offset=99999999999999999999\" ]", "a number of bytes"},
    {DISK "disk_options = [ \"xvda,size=0\" ]", "size=0: no disk is that small"},
    {DISK "disk_options = [ \"xvda,size=\" ]", "size=: a number of bytes"},
    {DISK "disk_options = [ \"xvda,offset=8388608T\" ]", "offset=8388608T"},
    {DISK "disk_options = [ \"xvda,offset=8388607T,size=1T\" ]", "end beyond any file"},
    {DISK "disk_options = [ \"xvda,direct-io=yes\" ]", "direct-io=yes: 0 (page cache) or 1"},
    {DISK "disk_options = [ \"xvda,persistent=2\" ]", "persistent=2: 1 (grants may stay mapped) or 0"},
    {DISK "disk_options = [ \"xvda,dma=\" ]", "the name of a DMA strategy"},
    {DISK "disk_options = [ \"xvda,dma=../x\" ]", "the name of a DMA strategy"},
    {DISK "disk_options = [ \"xvda,dma=averyverylongname\" ]", "the name of a DMA strategy"},
    {DISK "disk_options = [ \"xvda,max-queues=0\" ]", "max-queues=0: a number of 1 to 16"},
    {DISK "disk_options = [ \"xvda,max-queues=17\" ]", "max-queues=17: a number of 1 to 16"},
    {DISK "disk_options = [ \"xvda,max-queues=\" ]", "a number of 1 to 16"},
    {DISK "disk_options = [ \"xvda,image=\" ]", "the name of an image format"},
    {DISK "disk_options = [ \"xvda,image=a:b\" ]", "the name of an image format"},
    {DISK "disk_options = [ \"xvda,sector-size=1024\" ]", "sector-size=1024: 512 or 4096"},
    {DISK "disk_options = [ \"xvda,physical-sector-size=\" ]", "512 or 4096"},
    {DISK "disk_options = [ \"xvda,host-alignment=8192\" ]", "host-alignment=8192: 512 or 4096"},
    {DISK "disk_options = [ \"xvda,ofset=1M\" ]", "no disk option is called \"ofset=1M\""},
    {DISK "disk_options = [ \"xvda,\" ]", "no disk option is called \"\""},
};

static void test_each_bad_file_says_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct vmcfg cfg;
        struct err e = {0};
        int r = parse(bad[i].text, &cfg, &e);
        if (r >= 0 || !strstr(e.text, bad[i].sentence))
            fail_msg("row %zu: %d, \"%s\"; expected \"%s\" of\n%s", i, r, e.text, bad[i].sentence, bad[i].text);
        assert_null(strchr(e.text, '\n'));
    }
}

static const char good[] = "# comment with name = 'x' in it\n"
                           "name = \"guest-1.a_b\"\n"
                           "type='pvh'; memory = 128\n"
                           "disk = [ 'disk one.img,raw,xvda,rw',\n"
                           "         \"format=qcow2, vdev=xvdb1, access=ro, target=/a=b,c.img\", # nofkey = 1\n"
                           "         'file:/old.img,sda,r' ]\n"
                           "vif = [ '' ]\n"
                           "disk_options = [ \"xvda,offset=1M, size=64M,direct-io=1\", "
                           "\"51712,dma=copy,max-queues=4,persistent=0\", \"xvdb1,image=null\" ]\n";

static void test_a_good_file_is_read_whole(void **state)
{
    (void)state;
    struct vmcfg cfg;
    struct err e = {0};
    int r = parse(good, &cfg, &e);
    if (r)
        fail_msg("%s", e.text);
    assert_string_equal(cfg.name, "guest-1.a_b");
    assert_string_equal(cfg.ignored, "type, memory, vif");
    assert_int_equal(cfg.disk_count, 3);
    const struct keys_blk_config *a = &cfg.disk[0].config, *b = &cfg.disk[1].config, *c = &cfg.disk[2].config;
    assert_string_equal(cfg.disk[0].vdev, "xvda");
    assert_int_equal(cfg.disk[0].devid, 51712);
    assert_string_equal(a->path, "/srv/guests/disk one.img");
    assert_string_equal(a->format, "raw");
    assert_true(!a->readonly && a->direct_io && a->online && !a->cdrom && a->discard);
    assert_true(a->offset_bytes == 1 << 20 && a->size_bytes == 64 << 20);
    assert_string_equal(a->dma, "copy");
    assert_true(a->max_queues == 4 && b->max_queues == 0);
    assert_true(a->no_persistent);
    assert_int_equal(cfg.disk[1].devid, 51729);
    assert_string_equal(b->path, "/a=b,c.img");
    assert_string_equal(b->format, "null"); /* the option has the last word */
    assert_true(!b->discard && b->readonly && b->offset_bytes == 0 && b->size_bytes == 0 && !b->direct_io);
    assert_string_equal(c->path, "/old.img");
    assert_int_equal(cfg.disk[2].devid, 2048);
}

/* A file torn anywhere is refused or, where the tear leaves whole lines, read as the shorter file it is. */
static void test_a_file_torn_anywhere_is_survived(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (size_t length = 0; length < sizeof(good); length++) {
        struct vmcfg cfg;
        struct err e = {0};
        int r = vmcfg_read_text(good, length, "torn.cfg", "/srv", &cfg, &e);
        refused += r < 0;
        assert_true(r == 0 || strlen(e.text) > 10);
    }
    assert_true(refused > sizeof(good) / 2);
}

static void test_what_is_no_text_is_refused(void **state)
{
    (void)state;
    static const char zero[] = "name = \"g\"\n\0disk = []";
    struct vmcfg cfg;
    struct err e = {0};
    assert_int_equal(vmcfg_read_text(zero, sizeof(zero) - 1, "z.cfg", "/", &cfg, &e), -EINVAL);
    assert_non_null(strstr(e.text, "NUL"));
    char *big = calloc(1, VMCFG_BYTES_MAX + 2);
    memset(big, '\n', VMCFG_BYTES_MAX + 1);
    assert_int_equal(parse(big, &cfg, &e), -E2BIG);
    free(big);
    assert_int_equal(vmcfg_read_file("/nonexistent/guest.cfg", &cfg, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/nonexistent/guest.cfg"));
    assert_int_equal(vmcfg_read_file("/", &cfg, &e), -EISDIR);
}

static void test_limits_have_an_error_each(void **state)
{
    (void)state;
    char text[8192] = NAME "disk = [ ", path[700], item[800];
    for (unsigned i = 0; i <= VMCFG_DISKS_MAX; i++) {
        snprintf(item, sizeof(item), "\"/%u.img,raw,%u,rw\", ", i, 51712 + i);
        strcat(text, item);
    }
    strcat(text, "]\n");
    struct vmcfg cfg;
    struct err e = {0};
    assert_int_equal(parse(text, &cfg, &e), -E2BIG);
    assert_non_null(strstr(e.text, "33 disks"));
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = 0;
    snprintf(text, sizeof(text), NAME "disk = [ \"/%s,raw,xvda,rw\" ]", path);
    assert_int_equal(parse(text, &cfg, &e), -ENAMETOOLONG);
    assert_non_null(strstr(e.text, "longer than"));
}

static void test_a_disk_of_the_command_line_may_come_in_parts(void **state)
{
    (void)state;
    static const char *const parts[] = {"format=raw", "vdev=xvdc", "access=ro", "target=d.img"};
    static const char *const bare[] = {"d.img,raw", "xvdc,ro"};
    struct vmcfg_disk disk;
    struct err e = {0};
    assert_int_equal(vmcfg_disk_parse(parts, 4, "/cwd", &disk, &e), 0);
    assert_string_equal(disk.config.path, "/cwd/d.img");
    assert_true(disk.config.readonly);
    assert_int_equal(vmcfg_disk_parse(bare, 2, "/cwd", &disk, &e), 0);
    assert_int_equal(disk.devid, 51744);
    assert_int_equal(vmcfg_disk_parse(parts + 1, 3, "/cwd", &disk, &e), -EINVAL);
    assert_non_null(strstr(e.text, "does not say its format"));
    assert_true(vmcfg_is_disk_option("offset=1M") && vmcfg_is_disk_option("dma=pin"));
    assert_false(vmcfg_is_disk_option("offset") || vmcfg_is_disk_option("format=raw"));
}

static void test_the_examples_are_good(void **state)
{
    (void)state;
    static const char *const files[] = {"hello.cfg", "two-disks.cfg"};
    const char *source = getenv("DOMZERO_SOURCE");
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char path[4096];
        struct vmcfg cfg;
        struct err e = {0};
        snprintf(path, sizeof(path), "%s/examples/%s", source ? source : ".", files[i]);
        if (vmcfg_read_file(path, &cfg, &e))
            fail_msg("%s", e.text);
        assert_int_equal(cfg.disk_count, i + 1);
        assert_non_null(strstr(cfg.disk[0].config.path, "/examples/"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_bad_file_says_what_is_wrong),
        cmocka_unit_test(test_a_good_file_is_read_whole),
        cmocka_unit_test(test_a_file_torn_anywhere_is_survived),
        cmocka_unit_test(test_what_is_no_text_is_refused),
        cmocka_unit_test(test_limits_have_an_error_each),
        cmocka_unit_test(test_a_disk_of_the_command_line_may_come_in_parts),
        cmocka_unit_test(test_the_examples_are_good),
    };
    return cmocka_run_group_tests_name("cfg", tests, NULL, NULL);
}
