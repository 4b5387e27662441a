/* SPDX-License-Identifier: MIT */
/* bench/attack/attack_list.h: the attacks; one line makes the declaration and the table row. No include guard: an
 * X-macro list. */
ATTACK(revoke_reuse)
ATTACK(reallocate)
ATTACK(rewrite_grant)
ATTACK(rewrite_request)
ATTACK(rewrite_indirect)
ATTACK(flip_readonly)
ATTACK(checksum)
ATTACK(unmap_dma)
ATTACK(foreign_bus)
ATTACK(stale_iotlb)
ATTACK(foreign_interrupt)
