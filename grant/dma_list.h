/* SPDX-License-Identifier: MIT */
/* grant/dma_list.h: the strategies; one line makes the declaration and the table row. No include guard: an X-macro
 * list. */
DMA_STRATEGY(copy)
DMA_STRATEGY(pin)
DMA_STRATEGY(iommu)
DMA_STRATEGY(validate)
#ifdef DMA_BENCH_ROWS
DMA_STRATEGY(none)
DMA_STRATEGY(pin_each)
#endif
