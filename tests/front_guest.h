/* SPDX-License-Identifier: MIT */
/* tests/front_guest.h: what each test of the block frontend does with its guest. */
#ifndef TESTS_FRONT_GUEST_H
#define TESTS_FRONT_GUEST_H

#include "tests/front_world.h"

#define DEPTH            32
#define FRONT_TEST(name) cmocka_unit_test_setup_teardown(name, front_world_setup, front_world_teardown)

struct guest {
    struct dz_domain *dom;
    struct dz_vbd *disk;
};

void guest_open(struct front_world *w, struct guest *g);
void guest_open_with(struct front_world *w, struct guest *g, const struct dz_vbd_options *options);
/* Closes, and asserts that no event channel of the guest's is left anywhere. */
void guest_close(struct front_world *w, struct guest *g);
/* Opens a disk that its backend takes away while requests are in flight: asserts that these are done, and returns when
 * the disk has heard. */
void guest_detached(struct front_world *w, struct guest *g);
void submit(struct guest *g, struct dz_io *io);
unsigned drain(struct guest *g); /* takes all that is in flight: how many */
void fill(unsigned char *p, size_t bytes, unsigned seed);
/* What the hypervisor keeps for the guest. */
struct platform_domain holdings(struct front_world *w);

#endif
