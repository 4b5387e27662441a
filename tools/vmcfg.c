/* SPDX-License-Identifier: MIT */
#include "tools/vmcfg.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <libxl.h>
#include <libxlutil.h>

#include "base/parse.h"

#define KEY_SIZE 64 /* of a key in a sentence; a longer one is cut, and unknown either way */

/* One reading of one text. `report` collects what libxlutil has to say. */
struct reader {
    const char *name, *base_dir;
    FILE *report_file;
    char *report;
    size_t report_size;
    XLU_Config *xlu;
};

/* 0 where it can be a domain's name: [A-Za-z0-9_.-], begins with no . or -, is no number (those are domids). */
static int name_check(const char *name, struct err *e)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t n = strlen(name);
    if (n == 0 || n > VMCFG_NAME_MAX || strspn(name, allowed) != n)
        return err_set(e, -EINVAL, "\"%.80s\" cannot be a domain's name: 1 to %u of A-Z a-z 0-9 _ . - can", name,
                       VMCFG_NAME_MAX);
    uint64_t number;
    if (parse_u64(name, 0, UINT64_MAX, &number) != -EINVAL)
        return err_set(e, -EINVAL, "\"%s\" cannot be a domain's name: a number is taken for a domid; add a letter",
                       name);
    if (name[0] == '-' || name[0] == '.')
        return err_set(e, -EINVAL,
                       "\"%s\" cannot be a domain's name: it begins like an option or a path; begin with a letter",
                       name);
    if (!strcmp(name, "Domain-0"))
        return err_set(e, -EINVAL, "\"Domain-0\" is dom0's name: take another");
    return 0;
}

/* What libxlutil reported first, as the sentence; it names file and line. */
static int reported(struct reader *r, int code, struct err *e)
{
    fflush(r->report_file);
    r->report[strcspn(r->report, "\n")] = 0;
    return err_set(e, code, "%s", r->report[0] ? r->report : "the cfg file cannot be parsed");
}

/* ---- keys: libxlutil answers for a name but does not list them ---- */

/* Skips what is not the beginning of a statement: blanks, comments, and the inside of strings and lists. Returns the
 * next key and moves *p behind it; false at the end. The text is known to parse. */
static bool next_key(const char **p, unsigned *line, char key[KEY_SIZE])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    unsigned depth = 0;
    bool start = true;
    if (*line == 0)
        *line = 1;
    else
        start = false;
    for (; **p; (*p)++) {
        char c = **p;
        size_t word = strspn(*p, letters);
        if (c == '#') {
            *p += strcspn(*p, "\n") - 1;
        } else if (c == '\'' || c == '"') {
            const char *end = strchr(*p + 1, c);
            *p = end ? end : *p + strlen(*p) - 1;
        } else if (c == '[' || c == '(') {
            depth++;
        } else if (c == ']' || c == ')') {
            depth -= depth > 0;
        } else if (c == '\n' || c == ';') {
            *line += c == '\n';
            start = depth == 0;
        } else if (start && word) {
            snprintf(key, KEY_SIZE, "%.*s", (int)MIN(word, (size_t)KEY_SIZE), *p);
            *p += word;
            return true;
        }
    }
    return false;
}

static void add_ignored(struct vmcfg *cfg, const char *key)
{
    size_t n = strlen(cfg->ignored);
    if (n + strlen(key) + 3 < sizeof(cfg->ignored))
        snprintf(cfg->ignored + n, sizeof(cfg->ignored) - n, "%s%s", n ? ", " : "", key);
}

static int check_keys(struct reader *r, const char *text, struct vmcfg *cfg, struct err *e)
{
    unsigned line = 0;
    char key[KEY_SIZE];
    while (next_key(&text, &line, key)) {
        bool known;
        const char *nearest = vmcfg_key_nearest(key, &known);
        if (!known)
            return err_set(e, -EINVAL, "%s:%u: nobody knows the key \"%s\"; the nearest is \"%s\"", r->name, line, key,
                           nearest);
        if (!vmcfg_key_used(key))
            add_ignored(cfg, key);
    }
    return 0;
}

/* ---- values ---- */

/* The list `key` as strings: its length, 0 where it is missing. */
static int get_list(struct reader *r, const char *key, XLU_ConfigList **list, struct err *e)
{
    int count = 0;
    int rc = xlu_cfg_get_list(r->xlu, key, list, &count, 0);
    if (rc == ESRCH)
        return 0;
    if (rc)
        return err_set(e, -EINVAL, "%s: %s is a list: %s = [ \"...\", \"...\" ]", r->name, key, key);
    for (int i = 0; i < count; i++)
        if (!xlu_cfg_get_listitem(*list, i))
            return err_set(e, -EINVAL, "%s: item %d of %s is no string", r->name, i + 1, key);
    return count;
}

static int read_disks(struct reader *r, struct vmcfg *cfg, struct err *e)
{
    XLU_ConfigList *list;
    int count = get_list(r, "disk", &list, e);
    if (count > (int)VMCFG_DISKS_MAX)
        return err_set(e, -E2BIG, "%s: %d disks, of which a domain has at most %u", r->name, count, VMCFG_DISKS_MAX);
    for (int i = 0; i < count; i++) {
        const char *spec = xlu_cfg_get_listitem(list, i);
        struct vmcfg_disk *disk = &cfg->disk[i];
        int rc = vmcfg_disk_parse(&spec, 1, r->base_dir, disk, e);
        if (rc < 0)
            return err_prefix(e, rc, "%s", r->name);
        for (int j = 0; j < i; j++)
            if (cfg->disk[j].devid == disk->devid)
                return err_set(e, -EEXIST, "%s: two disks are %s; give each a virtual device of its own", r->name,
                               disk->vdev);
        cfg->disk_count++;
    }
    return count < 0 ? count : 0;
}

static struct vmcfg_disk *disk_find(struct vmcfg *cfg, const char *vdev)
{
    uint32_t devid;
    if (keys_blk_devid(vdev, &devid))
        return NULL;
    for (unsigned i = 0; i < cfg->disk_count; i++)
        if (cfg->disk[i].devid == devid)
            return &cfg->disk[i];
    return NULL;
}

/* "xvda,offset=1M,size=64M" */
static int disk_options(struct vmcfg *cfg, const char *text, struct err *e)
{
    _cleanup_free_ char *copy = strdup(text);
    if (!copy)
        return err_set(e, -ENOMEM, "no memory to parse disk_options");
    char *rest = copy, *item = strsep(&rest, ",");
    struct vmcfg_disk *disk = disk_find(cfg, item);
    if (!disk)
        return err_set(e, -EINVAL, "disk_options \"%.80s\" begin with no virtual device of a disk in disk=", text);
    while ((item = strsep(&rest, ","))) {
        int r = vmcfg_disk_option(disk, item + strspn(item, " "), e);
        if (r < 0)
            return err_prefix(e, r, "disk_options of %s", disk->vdev);
    }
    int r = keys_blk_qos_check(&disk->config.qos, e);
    return r ? err_prefix(e, r, "disk_options of %s", disk->vdev) : 0;
}

static int read_options(struct reader *r, struct vmcfg *cfg, struct err *e)
{
    XLU_ConfigList *list;
    int count = get_list(r, "disk_options", &list, e);
    for (int i = 0; i < count; i++) {
        int rc = disk_options(cfg, xlu_cfg_get_listitem(list, i), e);
        if (rc < 0)
            return err_prefix(e, rc, "%s", r->name);
    }
    return count < 0 ? count : 0;
}

static int read_name(struct reader *r, struct vmcfg *cfg, struct err *e)
{
    const char *name;
    int rc = xlu_cfg_get_string(r->xlu, "name", &name, 0);
    if (rc == ESRCH)
        return err_set(e, -EINVAL, "%s: no name: add a line such as name = \"guest1\"", r->name);
    if (rc)
        return err_set(e, -EINVAL, "%s: name is a string: name = \"guest1\"", r->name);
    rc = name_check(name, e);
    if (rc < 0)
        return err_prefix(e, rc, "%s", r->name);
    strcpy(cfg->name, name);
    return 0;
}

static int read_all(struct reader *r, const char *text, size_t length, struct vmcfg *cfg, struct err *e)
{
    if (xlu_cfg_readdata(r->xlu, text, (int)length))
        return reported(r, -EINVAL, e);
    int rc = check_keys(r, text, cfg, e);
    rc = rc ? rc : read_name(r, cfg, e);
    rc = rc ? rc : read_disks(r, cfg, e);
    return rc ? rc : read_options(r, cfg, e);
}

int vmcfg_read_text(const char *text, size_t length, const char *name, const char *base_dir, struct vmcfg *out,
                    struct err *e)
{
    if (length > VMCFG_BYTES_MAX)
        return err_set(e, -E2BIG, "%s is longer than %u bytes: that is no cfg file", name, VMCFG_BYTES_MAX);
    if (memchr(text, 0, length))
        return err_set(e, -EINVAL, "%s holds a NUL byte: that is no cfg file", name);
    struct reader r = {.name = name, .base_dir = base_dir};
    _cleanup_free_ char *copy = strndup(text, length);
    _cleanup_free_ struct vmcfg *cfg = calloc(1, sizeof(*cfg));
    r.report_file = open_memstream(&r.report, &r.report_size);
    r.xlu = r.report_file ? xlu_cfg_init(r.report_file, name) : NULL;
    int rc = copy && cfg && r.xlu ? read_all(&r, copy, length, cfg, e) : err_set(e, -ENOMEM, "%s: no memory", name);
    if (rc == 0)
        *out = *cfg;
    if (r.xlu)
        xlu_cfg_destroy(r.xlu);
    if (r.report_file)
        fclose(r.report_file);
    free(r.report);
    return rc;
}

int vmcfg_read_file(const char *path, struct vmcfg *out, struct err *e)
{
    _cleanup_free_ char *text = malloc(VMCFG_BYTES_MAX + 1), *base = NULL;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (!text)
        return err_set(e, -ENOMEM, "%s: no memory", path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(e, -errno, "%s cannot be opened: %s", path, strerror(errno));
    base = S_ISREG(st.st_mode) ? realpath(path, NULL) : getcwd(NULL, 0); /* a pipe lies nowhere */
    if (!base)
        return err_set(e, -errno, "%s: its directory has no name: %s", path, strerror(errno));
    size_t length = 0;
    ssize_t n;
    while (length <= VMCFG_BYTES_MAX && (n = read(fd, text + length, VMCFG_BYTES_MAX + 1 - length)) != 0) {
        if (n < 0)
            return err_set(e, -errno, "%s cannot be read: %s", path, strerror(errno));
        length += (size_t)n;
    }
    return vmcfg_read_text(text, length, path, S_ISREG(st.st_mode) ? dirname(base) : base, out, e);
}
