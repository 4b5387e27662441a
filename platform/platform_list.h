/* SPDX-License-Identifier: MIT */
/* platform/platform_list.h: the worlds; one line makes the declaration and the table row, the first is the default. No
 * include guard: an X-macro list. */
PLATFORM(user)
