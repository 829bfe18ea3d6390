/* What became of transactions: outcomes and, of purchases, who paid whom, in two generations.

   Invariant: an outcome is written once (R1), so no decision is in a generation twice; newest_id_ms of a generation is
   the youngest UUIDv7 in it, so an id that is younger need not be looked for there. */
#ifndef TALLYSTICK_OUTCOMES_H
#define TALLYSTICK_OUTCOMES_H

#include <string.h>

#include "hash.h"
#include "state.h"

/* Of an id and a slot: what outcomes, purchases, holds and refunds are found by. Clients choose both, so the slot is
   not beside a part of the id: whoever changes one by the other's change would have as many records as he likes under
   one hash. */
static inline uint64_t scoped_hash(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot) {
    uint64_t words[2];
    memcpy(words, id, sizeof words);
    return mix(mix(words[0] ^ state->seed, FOLD_K1 ^ (uint64_t)slot << 32) ^ words[1], FOLD_K2);
}

/* The time in a UUIDv7, ms since 1970; NO_TIME for any other id. */
#define NO_TIME (-1)
static inline int64_t id_ms(const unsigned char id[ID_BYTES]) {
    if (id[6] >> 4 != 7) return NO_TIME;
    int64_t ms = 0;
    for (int i = 0; i < 6; i++) ms = ms << 8 | id[i];
    return ms;
}

static inline struct generation *current_generation(struct state *state) {
    return &state->generations[state->current];
}
static inline const struct generation *previous_generation(const struct state *state) {
    return &state->generations[!state->current];
}

/* NULL for none. */
struct outcome *outcome_find_in(const struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                                uint64_t hash);
/* In the older generation too, unless the id is too young to be there. */
struct outcome *outcome_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, uint64_t hash);
const struct purchase *purchase_find_in(const struct generation *generation, const unsigned char id[ID_BYTES],
                                        uint16_t slot, uint64_t hash);
const struct purchase *purchase_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot,
                                     uint64_t hash);

/* Only after table_reserve, and where there is none. The caller fills in what is not named here. */
struct outcome *outcome_add(struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                            uint64_t hash);
struct purchase *purchase_add(struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                              uint64_t hash);
void purchase_name(struct purchase *purchase, const char *payer, uint8_t payer_length, const char *payee,
                   uint8_t payee_length);

static inline uint8_t outcome_code(const struct outcome *outcome) { return outcome->code & OUTCOME_CODE_MASK; }
uint16_t currency_number(const char currency[3]);
void currency_text(uint16_t number, char currency[3]);
uint64_t tick_number(const unsigned char tick[6]);
void tick_bytes(uint64_t number, unsigned char tick[6]);

/* Before this a transaction id that is not remembered cannot be told from one that was forgotten: ms since 1970. */
static inline int64_t id_cutoff_ms(const struct state *state, int64_t now_ms) {
    int64_t window_ends_ms = now_ms - state->meta.window_ms;
    return window_ends_ms > state->meta.horizon_ms ? window_ends_ms : state->meta.horizon_ms;
}

/* Forgets the older generation: the younger one becomes the older one. Outcomes of commits that are not settled are
   carried over, so a commit stays known until it is finished everywhere. Both horizons rise above all that is
   forgotten. False, and nothing is changed, without memory; *carried is how many were carried over. */
bool generations_rotate(struct state *state, uint32_t *carried);

#endif
