/* What commands answer of a bundle, in the forms of shard_node/contract/commands.py. */
#ifndef TALLYSTICK_REPLY_H
#define TALLYSTICK_REPLY_H

#include "attempts.h"
#include "work.h"

/* Attempts that stand in the way of a bundle's transactions: kept ones, or commits of this shard. */
struct others {
    uint32_t *entries; /* a transaction at the most: a record's number, doubled, and 1 for a commit */
    uint32_t count;
};
/* Bytes of the arena. */
size_t others_memory(uint32_t rows);
void others_begin(struct call *call, struct others *others, uint32_t rows);
static inline void others_add(struct others *others, uint32_t number, bool is_commit) {
    if (number != NO_RECORD) others->entries[others->count++] = 2u * number + is_commit;
}

/* A byte a transaction, or one when all have the same. */
void reply_codes(const struct call *call, const uint8_t *codes, uint32_t count);
/* A byte a transaction, none when all are 0. */
void reply_legs(const struct call *call, const uint8_t *legs, uint32_t count);
/* A number an own leg; none when they are not wanted. */
void reply_balances(const struct call *call, const int64_t *available, uint32_t count, bool wanted);
/* Each attempt once, where it comes first: its id, a byte, and the id of the shard that decides it, "" for this one. */
void reply_others(const struct call *call, const struct others *others);

#endif
