/* What one leg does to its account, and why it may not.

   Reserving a leg changes neither the account's version nor the ledger; releasing it takes back exactly what reserving
   it did. Applying never refuses: a leg that was judged, or reserved and released, can be applied whatever happened
   since. No sum leaves int64: balances, amounts and what is coming are within +-MAX_MINOR each. */
#ifndef TALLYSTICK_RULES_H
#define TALLYSTICK_RULES_H

#include "accounts.h"
#include "conditions.h"

/* A leg with all that it depends on. */
struct leg {
    uint32_t account; /* record number; NO_RECORD where there is none */
    uint8_t effect;
    int64_t amount;  /* minor units */
    int64_t version; /* that the account must have, or NO_VERSION */
    const char *currency;
    const unsigned char *condition; /* the id of its hold or purchase; NULL for none */
    int64_t bound;                  /* a hold's life in ms; a purchase's amount */
};

/* What carrying a leg out did, for the ledger: minor units. */
struct change {
    int64_t delta, held_delta;
};

/* 0, or why the account cannot take or give so much. `reserving`: what is taken will be held first. */
uint8_t credit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version);
uint8_t debit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version,
                      bool reserving);
/* 0, or why a leg cannot be carried out now, or reserved. CODE_BUSY: an attempt has pinned the hold; *pinned_by is its
   id, in the hold's record. */
uint8_t leg_refusal(const struct state *state, const struct leg *leg, int64_t now_ms, bool reserving,
                    const unsigned char **pinned_by);

void leg_reserve(struct state *state, const struct leg *leg, const unsigned char attempt_id[ATTEMPT_BYTES]);
void leg_release(struct state *state, const struct leg *leg, const unsigned char attempt_id[ATTEMPT_BYTES]);

/* A hold as its transaction makes it: what leg_apply needs to know of a HOLD beside the leg. `details` is memory that
   the hold takes over. */
struct hold_terms {
    int64_t now_ms;
    uint64_t fingerprint;
    char *details;
    uint16_t details_length;
};
/* `terms` only of a HOLD. `attempt_id` of a leg that the attempt has reserved, which is released with it; else NULL. */
struct change leg_apply(struct state *state, const struct leg *leg, const struct hold_terms *terms,
                        const unsigned char *attempt_id);

#endif
