/* Numbers that are the same wherever the same is held. */
#ifndef TALLYSTICK_DIGEST_H
#define TALLYSTICK_DIGEST_H

#include "state.h"

/* Of a slot's records: accounts with their limits, outcomes, holds, refunds; not of what belongs to the shard. */
uint64_t digest_of_slot(const struct state *state, uint16_t slot);
/* Of all that the shard holds. */
uint64_t digest_of_shard(const struct state *state);

#endif
