/* SPDX-License-Identifier: MIT */
/* tools/vmcfg.h: what a domain is to be, read from an xl.cfg file or a disk specification of the command line.
 *
 * The grammar is xl's own, through libxlutil: a file that xl takes is taken here. Keys that xl knows and that mean
 * nothing to a domain of processes (memory, vcpus, kernel ...) are named in `ignored`; a key that nobody knows is an
 * error. What xl has no word for stands in a list of ours:
 *
 *   disk_options = [ "xvda,offset=1M,size=64M,direct-io=1,dma=copy,max-queues=4,iops=500,bytes=20M" ]
 *
 * A disk's format is always given and never probed: whoever can write a raw image could make it look like another
 * format that names other files. xl takes "raw" where none is given; here that is an error.
 *
 * This is the parse stage: it opens the file that it reads and nothing else; whether an image exists is the backend's
 * to say. Relative targets of a file are resolved against that file's directory, those of the command line against the
 * current one.
 */
#ifndef TOOLS_VMCFG_H
#define TOOLS_VMCFG_H

#include "base/err.h"
#include "xenbus/keys_blk.h"

#define VMCFG_BYTES_MAX (64u << 10) /* of a file: no cfg that a person wrote comes near */
#define VMCFG_DISKS_MAX 32u         /* unmeasured */
#define VMCFG_NAME_MAX  63u         /* of a domain; struct platform_domain's */

struct vmcfg_disk {
    char vdev[32];
    uint32_t devid;
    struct keys_blk_config config;
};

struct vmcfg {
    char name[VMCFG_NAME_MAX + 1];
    unsigned disk_count;
    struct vmcfg_disk disk[VMCFG_DISKS_MAX];
    char ignored[256]; /* "memory, vcpus"; cut where there are more */
};

/* 0, or -errno with a sentence that names the file and what in it is wrong. */
int vmcfg_read_file(const char *path, struct vmcfg *out, struct err *e);
/* The same of a text; `name` is what sentences call it, `base_dir` what relative targets are relative to. */
int vmcfg_read_text(const char *text, size_t length, const char *name, const char *base_dir, struct vmcfg *out,
                    struct err *e);
/* One disk out of the components of its specification, each as xl's block-attach takes them. */
int vmcfg_disk_parse(const char *const *specs, unsigned count, const char *base_dir, struct vmcfg_disk *out,
                     struct err *e);
/* "offset=1M" and its like into the disk. */
int vmcfg_disk_option(struct vmcfg_disk *disk, const char *option, struct err *e);
/* True where `text` begins with the name of an option of ours and '='. */
bool vmcfg_is_disk_option(const char *text);
/* Which of keys_blk_qos_keys `text` begins with, followed by '='; -1: none. */
int vmcfg_qos_find(const char *text);
int vmcfg_qos_option(struct keys_blk_qos *q, const char *option, struct err *e);
/* A word of lower-case letters that fits into `size`. */
bool vmcfg_word(const char *text, size_t size);

/* The nearest key that xl or we know, for a key that nobody knows; *known: it is one. */
const char *vmcfg_key_nearest(const char *key, bool *known);
/* True where it is a key of ours: all others are xl's. */
bool vmcfg_key_used(const char *key);

#endif
