/* SPDX-License-Identifier: MIT */
/* backend/blk/image_list.h: the image formats; one line makes the declaration and the table row. No include guard. */
IMAGE_FORMAT(raw)
IMAGE_FORMAT(null)
IMAGE_FORMAT(log)
IMAGE_FORMAT(sum)
