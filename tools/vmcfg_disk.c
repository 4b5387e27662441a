/* SPDX-License-Identifier: MIT */
/* tools/vmcfg_disk.c: one disk: xl's specification through libxlutil, and the options that xl has no word for. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <libxl.h>
#include <libxlutil.h>

#include "base/parse.h"
#include "base/span.h"
#include "tools/vmcfg.h"

#define FORMAT_HINT "write TARGET,FORMAT,VDEV,ACCESS as in /srv/disk.img,raw,xvda,rw"

/* ---- options of ours ---- */

static int option_sectors(const char *option, const char *value, uint64_t *out, struct err *e)
{
    uint64_t bytes;
    if (parse_size(value, &bytes))
        return err_set(e, -EINVAL, "%s: a number of bytes with an optional K, M, G or T was expected", option);
    if (bytes % SECTOR_BYTES || bytes > INT64_MAX)
        return err_set(e, -EINVAL, "%s: a multiple of %u bytes below 8 EiB was expected", option, SECTOR_BYTES);
    *out = bytes;
    return 0;
}

static int option_offset(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    return option_sectors(option, value, &disk->config.offset_bytes, e);
}

static int option_size(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t size = 0;
    int r = option_sectors(option, value, &size, e);
    if (r == 0 && size == 0)
        return err_set(e, -EINVAL, "%s: no disk is that small; leave size out for all that is behind offset", option);
    if (r == 0)
        disk->config.size_bytes = size;
    return r;
}

static int option_persistent(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t on;
    if (parse_u64(value, 0, 1, &on))
        return err_set(e, -EINVAL, "%s: 1 (grants may stay mapped) or 0 was expected", option);
    disk->config.no_persistent = !on;
    return 0;
}

static int option_direct_io(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t on;
    if (parse_u64(value, 0, 1, &on))
        return err_set(e, -EINVAL, "%s: 0 (page cache) or 1 (O_DIRECT) was expected", option);
    disk->config.direct_io = on;
    return 0;
}

bool vmcfg_word(const char *text, size_t size)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz-");
    return text[0] != '-' && n > 0 && !text[n] && n < size;
}

/* Which strategies there are is the backend's to know. */
static int option_dma(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    if (!vmcfg_word(value, sizeof(disk->config.dma)))
        return err_set(e, -EINVAL, "%s: the name of a DMA strategy such as pin or copy was expected", option);
    strcpy(disk->config.dma, value);
    return 0;
}

static int option_iommu(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    if (strcmp(value, "strict") && strcmp(value, "deferred"))
        return err_set(e, -EINVAL, "%s: strict (an unmap has ended when it is answered) or deferred was expected",
                       option);
    disk->config.iommu_deferred = !strcmp(value, "deferred");
    return 0;
}

static int option_dma_bits(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t bits;
    if (parse_u64(value, KEYS_BLK_BUS_BITS_32, KEYS_BLK_BUS_BITS_MAX, &bits) ||
        (bits != KEYS_BLK_BUS_BITS_32 && bits != KEYS_BLK_BUS_BITS_MAX))
        return err_set(e, -EINVAL, "%s: %d or %d was expected", option, KEYS_BLK_BUS_BITS_32, KEYS_BLK_BUS_BITS_MAX);
    disk->config.dma_bits = (uint32_t)bits;
    return 0;
}

static int option_on_error(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    if (strcmp(value, "report") && strcmp(value, "stop"))
        return err_set(e, -EINVAL, "%s: report (errors go to the guest) or stop (requests are held) was expected",
                       option);
    disk->config.stop_on_error = !strcmp(value, "stop");
    return 0;
}

static int option_poll(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    if (!vmcfg_word(value, sizeof(disk->config.poll)))
        return err_set(e, -EINVAL, "%s: interrupt, adaptive, poll or default was expected", option);
    strcpy(disk->config.poll, strcmp(value, "default") ? value : "");
    return 0;
}

int vmcfg_qos_find(const char *text)
{
    for (int i = 0; i < KEYS_BLK_QOS_KEYS; i++) {
        size_t n = strlen(keys_blk_qos_keys[i].name);
        if (!strncmp(text, keys_blk_qos_keys[i].name, n) && text[n] == '=')
            return i;
    }
    return -1;
}

int vmcfg_qos_option(struct keys_blk_qos *q, const char *option, struct err *e)
{
    const struct keys_blk_qos_key *key = &keys_blk_qos_keys[vmcfg_qos_find(option)];
    const char *text = option + strlen(key->name) + 1;
    bool bytes = !strncmp(key->name, "bytes", 5);
    uint64_t value;
    int r = bytes ? parse_size(text, &value) : parse_u64(text, 0, KEYS_BLK_QOS_MAX, &value);
    if (r || value > KEYS_BLK_QOS_MAX)
        return err_set(e, -EINVAL, "%.60s: %s was expected, 0 for no limit", option,
                       bytes ? "a number of bytes with an optional K, M, G or T" : "a number");
    *keys_blk_qos_value(q, key) = value;
    return 0;
}

static int option_qos(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    (void)value;
    return vmcfg_qos_option(&disk->config.qos, option, e);
}

static int option_max_queues(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t queues;
    if (parse_u64(value, 1, KEYS_BLK_QUEUES_MAX, &queues))
        return err_set(e, -EINVAL, "%s: a number of 1 to %u was expected", option, KEYS_BLK_QUEUES_MAX);
    disk->config.max_queues = (uint32_t)queues;
    return 0;
}

/* The formats that libxlutil has no word for. Which there are is the backend's to know. */
static int option_image(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    size_t n = strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789");
    if (n == 0 || value[n] || n >= sizeof(disk->config.format))
        return err_set(e, -EINVAL, "%s: the name of an image format such as raw or null was expected", option);
    strcpy(disk->config.format, value);
    return 0;
}

static int option_block_bytes(const char *option, const char *value, uint32_t *out, struct err *e)
{
    uint64_t bytes;
    if (parse_u64(value, SECTOR_BYTES, PAGE_BYTES, &bytes) || (bytes != SECTOR_BYTES && bytes != PAGE_BYTES))
        return err_set(e, -EINVAL, "%s: %u or %u was expected", option, SECTOR_BYTES, (unsigned)PAGE_BYTES);
    *out = (uint32_t)bytes;
    return 0;
}

static int option_sector(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    return option_block_bytes(option, value, &disk->config.sector_bytes, e);
}

static int option_physical(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    return option_block_bytes(option, value, &disk->config.physical_sector_bytes, e);
}

static int option_alignment(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    return option_block_bytes(option, value, &disk->config.host_alignment_bytes, e);
}

static int option_report_after(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e)
{
    uint64_t ms;
    if (parse_u64(value, 0, INT32_MAX, &ms))
        return err_set(e, -EINVAL, "%.60s: milliseconds, or 0 to wait for ever, were expected", option);
    disk->config.report_after_ms = (uint32_t)ms;
    return 0;
}

static const struct option {
    const char *name;
    int (*set)(struct vmcfg_disk *disk, const char *option, const char *value, struct err *e);
} options[] = {
    {"offset", option_offset},
    {"size", option_size},
    {"direct-io", option_direct_io},
    {"dma", option_dma},
    {"iommu", option_iommu},
    {"dma-bits", option_dma_bits},
    {"on-error", option_on_error},
    {"report-after", option_report_after},
    {"image", option_image},
    {"max-queues", option_max_queues},
    {"persistent", option_persistent},
    {"poll", option_poll},
    {"iops", option_qos},
    {"iops-burst", option_qos},
    {"bytes", option_qos},
    {"bytes-burst", option_qos},
    {"sector-size", option_sector},
    {"physical-sector-size", option_physical},
    {"host-alignment", option_alignment},
};

static const struct option *option_find(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        size_t n = strlen(options[i].name);
        if (!strncmp(text, options[i].name, n) && text[n] == '=')
            return &options[i];
    }
    return NULL;
}

bool vmcfg_is_disk_option(const char *text)
{
    return option_find(text);
}

static int option_unknown(const char *option, struct err *e)
{
    char names[512] = "";
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, "%s%s=", i ? ", " : "", options[i].name);
    }
    return err_set(e, -EINVAL, "no disk option is called \"%s\"; there are %s", option, names);
}

int vmcfg_disk_option(struct vmcfg_disk *disk, const char *option, struct err *e)
{
    const struct option *o = option_find(option);
    if (!o)
        return option_unknown(option, e);
    int r = o->set(disk, option, option + strlen(o->name) + 1, e);
    if (r == 0 && !span_fits(disk->config.offset_bytes, disk->config.size_bytes, INT64_MAX))
        return err_set(e, -EINVAL, "%s: offset and size together end beyond any file", option);
    return r;
}

/* ---- the specification ---- */

static const char *format_name(libxl_disk_format format)
{
    switch (format) {
    case LIBXL_DISK_FORMAT_RAW: return "raw";
    case LIBXL_DISK_FORMAT_QCOW: return "qcow";
    case LIBXL_DISK_FORMAT_QCOW2: return "qcow2";
    case LIBXL_DISK_FORMAT_VHD: return "vhd";
    case LIBXL_DISK_FORMAT_QED: return "qed";
    default: return NULL;
    }
}

/* Whether a specification says its format; libxlutil does not tell, it takes raw. The format is `format=`, the second
 * bare item, or a word and a colon before the target (the old spelling). `target=` takes all that follows it. */
static bool spec_names_format(const char *spec, unsigned *bare)
{
    while (*spec) {
        size_t length = strcspn(spec, ",");
        while (length && isspace((unsigned char)*spec))
            spec++, length--;
        size_t word = strspn(spec, "abcdefghijklmnopqrstuvwxyz0123456789-");
        if (!strncmp(spec, "target=", 7))
            return false;
        if (!strncmp(spec, "format=", 7))
            return length > 7;
        if (word == length && length && *bare == 1)
            return true;
        if (word < length && spec[word] == ':' && *bare == 0)
            return true;
        if (word >= length || spec[word] != '=')
            (*bare)++;
        spec += length;
        spec += *spec == ',';
    }
    return false;
}

/* The first line of what libxlutil reported, without its own name for the place. */
static const char *report_line(char *report)
{
    static const char place[] = "disk specification: ";
    report[strcspn(report, "\n")] = 0;
    char *at = strstr(report, place);
    return at ? at + strlen(place) : report[0] ? report : "no disk specification";
}

static int disk_check(const libxl_device_disk *d, bool format_given, const char *spec, struct err *e)
{
    if (!d->pdev_path || !d->pdev_path[0])
        return err_set(e, -EINVAL, "disk \"%s\" has no target: " FORMAT_HINT, spec);
    if (!format_given)
        return err_set(e, -EINVAL,
                       "disk \"%s\" does not say its format, which is always given and never probed: " FORMAT_HINT,
                       spec);
    if (!format_name(d->format))
        return err_set(e, -EINVAL, "disk \"%s\": a disk without a medium cannot be served", spec);
    if (d->script || d->is_cdrom < 0)
        return err_set(e, -EINVAL, "disk \"%s\": hotplug scripts are not run here; leave script= out", spec);
    if (d->backend_domname && strcmp(d->backend_domname, "0") && strcmp(d->backend_domname, "Domain-0"))
        return err_set(e, -EINVAL, "disk \"%s\": disks are served by domain 0; leave backend= out", spec);
    return 0;
}

static int disk_take(const libxl_device_disk *d, const char *base_dir, struct vmcfg_disk *out, struct err *e)
{
    bool discard = libxl_defbool_is_default(d->discard_enable) ? d->readwrite : libxl_defbool_val(d->discard_enable);
    struct vmcfg_disk disk = {.config = {.readonly = !d->readwrite,
                                         .cdrom = d->is_cdrom,
                                         .removable = d->removable,
                                         .discard = discard,
                                         .direct_io_safe = d->direct_io_safe,
                                         .online = true}};
    struct keys_blk_config *k = &disk.config;
    if (strlen(d->vdev) >= sizeof(disk.vdev) || keys_blk_devid(d->vdev, &disk.devid))
        return err_set(e, -EINVAL, "\"%.40s\" is no virtual device: name one such as xvda, xvdb1, sda or hda", d->vdev);
    strcpy(disk.vdev, d->vdev);
    strcpy(k->format, format_name(d->format));
    bool absolute = d->pdev_path[0] == '/';
    int n = snprintf(k->path, sizeof(k->path), "%s%s%s", absolute ? "" : base_dir, absolute ? "" : "/", d->pdev_path);
    if (n < 0 || (size_t)n >= sizeof(k->path))
        return err_set(e, -ENAMETOOLONG, "the target of %s is longer than %zu bytes: move the image up", disk.vdev,
                       sizeof(k->path) - 1);
    *out = disk;
    return 0;
}

int vmcfg_disk_parse(const char *const *specs, unsigned count, const char *base_dir, struct vmcfg_disk *out,
                     struct err *e)
{
    _cleanup_free_ char *report = NULL;
    size_t report_size;
    unsigned bare = 0;
    bool format_given = false;
    for (unsigned i = 0; i < count; i++)
        format_given |= spec_names_format(specs[i], &bare);
    FILE *f = open_memstream(&report, &report_size);
    XLU_Config *xlu = f ? xlu_cfg_init(f, "disk") : NULL;
    if (!xlu) {
        if (f)
            fclose(f);
        return err_set(e, -ENOMEM, "no memory to parse a disk");
    }
    libxl_device_disk disk;
    libxl_device_disk_init(&disk);
    int r = -xlu_disk_parse(xlu, (int)count, specs, &disk);
    fclose(f);
    if (r < 0)
        err_set(e, r, "%s: " FORMAT_HINT, report_line(report));
    r = r ? r : disk_check(&disk, format_given, count ? specs[0] : "", e);
    r = r ? r : disk_take(&disk, base_dir, out, e);
    libxl_device_disk_dispose(&disk);
    xlu_cfg_destroy(xlu);
    return r;
}
