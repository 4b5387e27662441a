/* SPDX-License-Identifier: MIT */
/* store/handover.h: a whole server as a stream of records, for the program that goes on in this process's place.
 *
 * Beside the engine's state (store/state.h) it has the descriptors of the listening sockets and of the connections, as
 * numbers, and for each connection the requests that were read and not served and the answers that were not taken. So
 * a client's half request is completed by its second half, and half a reply is followed by the other half. A ring has
 * no descriptor that survives: its page and port are found again by the domain's number, its bytes lie in the page.
 *
 * The stream is made between steps, when nothing is on its way, and is good as long as nothing is served after it.
 */
#ifndef STORE_HANDOVER_H
#define STORE_HANDOVER_H

#include "store/server.h"
#include "store/stream.h"

/* 0, or -ENOMEM. The caller frees *o in any case. */
int store_handover_save(struct store_server *s, struct store_stream_out *o);
/* Whether the descriptors that the stream names stay open when another program is executed. */
void store_handover_keep(struct store_server *s, bool keep);
/* For the server that starts: fills it, whose engine is fresh and which has no sockets. 0, or -errno with a sentence.
 */
int store_handover_load(struct store_server *s, const struct store_saved *saved, struct err *e);
/* Whether this program could go on from it: all of it is read, into an engine that is thrown away; no descriptor is
 * touched. 0, or -errno with a sentence. */
int store_handover_check(const struct store_saved *saved, struct err *e);

#endif
