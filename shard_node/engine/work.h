/* One bundle of a call: its own legs, their accounts, and what came of its transactions.

   Own legs are those that a shard has to do with: all of a posted bundle, else those of one owner. They are numbered in
   the bundle's order. Accounts are found, and memory for all that may be added is had, before a command changes
   anything. A plain bundle's rows go through a way of their own, in blocks whose memory is fetched ahead. */
#ifndef TALLYSTICK_WORK_H
#define TALLYSTICK_WORK_H

#include "bundle.h"
#include "rules.h"

/* Rows whose memory is fetched before the first of them is worked on. */
#define BLOCK_ROWS 32u

struct work {
    struct bundle bundle;
    RedisModuleString *argument; /* the bundle */
    uint8_t owner;
    uint32_t leg_count;  /* own legs */
    uint32_t *accounts;  /* an own leg: a record's number, or NO_RECORD */
    uint32_t *own_legs;  /* an own leg: its place in the bundle; NULL of a plain bundle */
    uint32_t *first_own; /* a transaction, and one more for the end: its first own leg; NULL of a plain bundle */
    uint64_t *hashes;    /* a transaction: scoped_hash of its decision; made by work_need_outcomes */
    char **details;      /* a transaction: memory for its hold's details, or NULL; NULL of a plain bundle */
    uint8_t *codes;      /* a transaction: what is answered */
    uint8_t *refused;    /* a transaction: the leg that a refusal concerns */
    uint8_t *decided;    /* a transaction: the code that this call records or carries out; 0 for none */
    /* What was carried out, by own leg: minor units available; then for the ledger. */
    int64_t *available, *balances, *versions, *held_deltas;
    uint32_t applied_legs;
};

/* Hashes of records that the call may add, of all its bundles: table_reserve counts from what is there. */
struct needs {
    uint64_t *outcomes, *purchases, *holds, *refunds;
    uint32_t outcome_count, purchase_count, hold_count, refund_count;
};

/* Bytes of the arena. */
size_t work_memory(uint32_t rows, uint32_t legs);
size_t needs_memory(uint32_t rows);
/* Adds up what the bundles of a call have, which are every `step`th argument from `first` on: their transactions, and
   the bytes of the arena for working on them. NULL, or what is wrong with one. */
const char *work_measure(const struct call *call, int first, int step, uint32_t *rows, size_t *size);
/* Reads the bundle and finds its own legs. NULL, or what is wrong with it. */
const char *work_read(struct call *call, struct work *work, RedisModuleString *argument, uint8_t owner);
/* Finds the accounts of own legs. System accounts that are missing begin, and are counted in *begun. False without
   memory. */
bool work_find_accounts(struct call *call, struct work *work, uint32_t *begun);
/* The work of an attempt that is kept: its accounts are known, and its bundle was checked. Of a plain bundle there are
   no texts, and so no fingerprints. */
void work_recall(struct call *call, struct work *work, const struct attempt *attempt);
/* Columns for what is answered, and for what is carried out. */
void work_take_codes(struct call *call, struct work *work);
void work_take_balances(struct call *call, struct work *work);

void needs_begin(struct call *call, struct needs *needs, uint32_t rows);
/* What recording outcomes, and carrying out or reserving own legs, may add. False without memory for holds' details. */
void work_need_outcomes(const struct call *call, struct work *work, struct needs *needs);
bool work_need_conditions(const struct call *call, struct work *work, struct needs *needs, bool holds);
bool needs_meet(struct state *state, const struct needs *needs);
/* Gives back details that no hold took over. */
void work_end(struct work *work);

/* Fetches what a block of rows from `first` on will touch. */
void work_fetch(const struct call *call, const struct work *work, uint32_t first);

/* An own leg of a transaction, with all that it depends on. */
struct leg work_leg(const struct work *work, uint32_t row, uint32_t own);

/* What is said of a transaction: 0 for yes, or a refusal of leg `leg`, or CODE_BUSY for the sake of the attempt at
   `pinned_by`. Legs behind the first are checked first: so the refusal is the same wherever accounts are. */
struct judgement {
    uint8_t code, leg;
    const unsigned char *pinned_by;
};
struct judgement work_judge(const struct call *call, const struct work *work, uint32_t row, bool reserving);
bool work_owns(const struct work *work, uint32_t row);
/* Carries out own legs; `attempt_id` of what it has reserved, else NULL. */
void work_apply(struct call *call, struct work *work, uint32_t row, uint64_t fingerprint,
                const unsigned char *attempt_id);
/* Whether this holds something of an account back. */
bool work_reserve(struct call *call, struct work *work, uint32_t row, const unsigned char attempt_id[ATTEMPT_BYTES]);
void work_release(struct call *call, struct work *work, uint32_t row, const unsigned char attempt_id[ATTEMPT_BYTES]);

#endif
