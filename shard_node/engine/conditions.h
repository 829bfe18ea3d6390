/* Holds, what was refunded of purchases, and the pins by which attempts keep holds for themselves.

   Invariants: a hold's amount is part of what its account has held; holds that are not pinned, and only those, are in
   the heap of what is due; no refund's sum is zero. Two holds may have one name, when two scopes have one id: each is
   found by its account, and of one account that which is due last. */
#ifndef TALLYSTICK_CONDITIONS_H
#define TALLYSTICK_CONDITIONS_H

#include "outcomes.h"

static inline struct hold *hold_at(const struct state *state, uint32_t number) {
    return table_record(&state->holds, number);
}

/* Room for `count` more holds of these hashes (scoped_hash); false without memory. */
bool holds_reserve(struct state *state, const uint64_t *hashes, uint32_t count);
bool hold_exists(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot);
/* An account's hold of that name, pinned by that attempt unless it is NULL; NO_RECORD for none. */
uint32_t hold_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, uint32_t account,
                   const unsigned char *pinned_by);
/* Only after holds_reserve. `hold` has what the caller knows of it: account, slot, amount, expires_ms, fingerprint, id,
   details, which it owns from now on; its pin and links are set here. */
uint32_t hold_add(struct state *state, const struct hold *hold);
void hold_remove(struct state *state, uint32_t number);

static inline bool hold_is_pinned(const struct hold *hold) { return hold->due == NO_RECORD; }
void hold_pin(struct state *state, uint32_t number, const unsigned char attempt_id[ATTEMPT_BYTES]);
void hold_unpin(struct state *state, uint32_t number);
/* The hold that is due first, by expiry, then id and slot, of those that are not pinned; NO_RECORD for none. */
uint32_t hold_first_due(const struct state *state);

/* Minor units that were refunded of a purchase to accounts of a slot; prepared refunds count. */
int64_t refund_sum(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot);
/* Only after table_reserve of refunds, where the sum may rise from zero. */
void refund_change(struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, int64_t change);

#endif
