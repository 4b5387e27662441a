/* SPDX-License-Identifier: MIT */
/* tools/verb_list.h: the verbs, in the order of `domzero help`. No include guard: an X-macro list. */
VERB(create)
VERB(destroy)
VERB(list)
VERB(exec)
VERB(block_attach)
VERB(block_detach)
VERB(block_set)
VERB(block_resize)
VERB(block_list)
VERB(block_stats)
VERB(upgrade)
VERB(top)
