/* SPDX-License-Identifier: MIT */
/* xenbus/vdev.c: virtual device names and numbers, as xen-vbd-interface(7) gives them. Declared in keys_blk.h.
 *
 *   xvdX[P]   disk and partition below 16: 202 << 8 | disk << 4 | partition, Linux's major and minor of old
 *             else the extended form:       1 << 28 | disk << 8 | partition
 *   sdX[P]    8 << 8 | disk << 4 | partition, 16 disks of 15 partitions
 *   hdX[P]    3 << 8 | disk << 6 | partition for the first two, major 22 for the next two; 63 partitions
 *   number    itself, decimal or hexadecimal
 *
 * The same disk has two numbers where both forms reach (xvda as 51712 and as 1 << 28): only the first has the name.
 */
#include "xenbus/keys_blk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

#define XVD_MAJOR       202u
#define SD_MAJOR        8u
#define HD_MAJOR_FIRST  3u
#define HD_MAJOR_SECOND 22u
#define EXTENDED        (1u << 28)
#define DISKS_MAX       (1u << 20) /* what fits between partition and EXTENDED */
#define PARTITIONS_MAX  255u

/* Letters as a number in base 26 without a zero digit: a is 0, z 25, aa 26. Moves *p behind them. */
static bool disk_letters(const char **p, uint32_t *disk)
{
    uint32_t n = 0;
    const char *start = *p;
    for (; **p >= 'a' && **p <= 'z'; (*p)++) {
        n = n * 26 + (uint32_t)(**p - 'a') + 1;
        if (n > DISKS_MAX)
            return false;
    }
    *disk = n - 1;
    return *p != start;
}

int keys_blk_devid(const char *vdev, uint32_t *devid)
{
    uint64_t partition = 0;
    uint32_t disk;
    if (vdev[0] >= '0' && vdev[0] <= '9') {
        uint64_t number;
        if (parse_u64(vdev, 0, UINT32_MAX, &number))
            return -EINVAL;
        *devid = (uint32_t)number;
        return 0;
    }
    bool xvd = !strncmp(vdev, "xvd", 3);
    bool sd = !strncmp(vdev, "sd", 2), hd = !strncmp(vdev, "hd", 2);
    const char *p = vdev + (xvd ? 3 : 2);
    if ((!xvd && !sd && !hd) || !disk_letters(&p, &disk))
        return -EINVAL;
    if (*p && (*p == '0' || strpbrk(p, "xX") || parse_u64(p, 1, PARTITIONS_MAX, &partition)))
        return -EINVAL;
    uint32_t part = (uint32_t)partition;
    if ((sd && (disk > 15 || part > 15)) || (hd && (disk > 3 || part > 63)))
        return -EINVAL;
    if (hd)
        *devid = (disk < 2 ? HD_MAJOR_FIRST : HD_MAJOR_SECOND) << 8 | (disk & 1) << 6 | part;
    else if (sd)
        *devid = SD_MAJOR << 8 | disk << 4 | part;
    else if (disk < 16 && part < 16)
        *devid = XVD_MAJOR << 8 | disk << 4 | part;
    else
        *devid = EXTENDED | disk << 8 | part;
    return 0;
}

void keys_blk_vdev(uint32_t devid, char *out, size_t size)
{
    uint32_t disk, part;
    char letters[8], number[8] = "";
    size_t i = sizeof(letters) - 1;
    if (devid >> 8 == XVD_MAJOR) {
        disk = devid >> 4 & 15;
        part = devid & 15;
    } else {
        disk = devid >> 8 & (DISKS_MAX - 1);
        part = devid & PARTITIONS_MAX;
        if (devid >> 28 != 1 || (disk < 16 && part < 16)) {
            snprintf(out, size, "%" PRIu32, devid);
            return;
        }
    }
    letters[i] = 0;
    for (uint32_t n = disk + 1; n; n = (n - 1) / 26)
        letters[--i] = (char)('a' + (n - 1) % 26);
    if (part)
        snprintf(number, sizeof(number), "%" PRIu32, part);
    snprintf(out, size, "xvd%s%s", letters + i, number);
}
