/* SPDX-License-Identifier: MIT */
/* grant/dma_list.h: the strategies; one line makes the declaration and the table row. No include guard: an X-macro
 * list. */
DMA_STRATEGY(copy)
DMA_STRATEGY(pin)
DMA_STRATEGY(iommu)
