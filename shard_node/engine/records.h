/* The records of a slot as bytes: for snapshots, for moves to another shard, for digests. One form, written and read
   here; see shard_node/contract/layout.py.

   A record is a byte with its kind, its struct, and its texts. For a move and for a digest it leaves out what belongs
   to the shard: what is coming to an account, which commit an outcome belongs to, which attempt pins a hold; for a
   digest also the generation. So a slot's digest is the same before and after a move. */
#ifndef TALLYSTICK_RECORDS_H
#define TALLYSTICK_RECORDS_H

#include "accounts.h"
#include "attempts.h"
#include "conditions.h"
#include "outcomes.h"

enum record_use { FOR_SNAPSHOT, FOR_MOVE, FOR_DIGEST };

/* The lists that a slot has, in the order in which they are written: what comes later may need what comes earlier. */
enum slot_part {
    PART_ACCOUNTS,
    PART_PURCHASES_YOUNGER,
    PART_PURCHASES_OLDER,
    PART_OUTCOMES_YOUNGER,
    PART_OUTCOMES_OLDER,
    PART_HOLDS,
    PART_REFUNDS,
    SLOT_PARTS
};

/* No record is larger: a hold with details. */
#define MAX_RECORD_BYTES (1u + sizeof(struct moved_hold) + MAX_ACCOUNT_ID_BYTES + UINT16_MAX + ATTEMPT_BYTES)

/* ------------------------------------------------------------------ writing */

const struct table *part_table(const struct state *state, enum slot_part part);
/* The first record of a part of a slot, and the one behind it: links, 0 for none. */
link part_first(const struct state *state, enum slot_part part, uint16_t slot);
link part_next(const struct state *state, enum slot_part part, link at);
/* Turns all lists of all slots round. Who reads records and adds them ends with lists in the opposite order. */
void parts_reverse(struct state *state);
/* Whether an outcome or a purchase of the older generation is in the younger one too, carried over by a rotation. Counts
   and digests leave such a one out; where a slot is moved to, both become one. */
bool part_repeats(const struct state *state, enum slot_part part, link at);
/* Into at least MAX_RECORD_BYTES; how many bytes it took. */
size_t record_write(const struct state *state, enum slot_part part, link at, enum record_use use, unsigned char *to);
/* Bytes of a part's records before their texts, with the kind. */
size_t record_head_size(enum slot_part part);
/* Takes an outcome or a purchase away: the first of that part of a slot. */
void outcome_part_remove_first(struct state *state, enum slot_part part, uint16_t slot);

/* ------------------------------------------------------------------ reading */

/* Bytes that came from outside. */
struct reader {
    const unsigned char *at, *end;
};
bool reader_take(struct reader *reader, void *to, size_t size);
/* NULL when there are fewer. */
const unsigned char *reader_skip(struct reader *reader, size_t size);

struct record {
    uint8_t kind;
    union {
        struct moved_account account;
        struct moved_outcome outcome;
        struct moved_purchase purchase;
        struct moved_hold hold;
        struct moved_refund refund;
    };
    uint16_t slot;
    uint64_t hash; /* in its table */
    const char *texts; /* one after the other */
    const unsigned char *pinned_by; /* of a hold; NULL for nobody */
    /* What it will own, if anything: struct account_extra, or a hold's details. */
    void *memory;
};

/* Reads one record and checks it by itself. `head_size` is what record_head_size was where it was written, WHOLE_RECORD
   for the present one; what an older engine did not know is zero. False when it is none. */
#define WHOLE_RECORD 0u
bool record_read(const struct state *state, struct reader *reader, size_t head_size, struct record *record);
/* The table that it goes to. */
struct table *record_table(struct state *state, const struct record *record);
/* Whether it can be taken in, given what is there; NULL, or why not. */
const char *record_refusal(const struct state *state, const struct record *record);
/* Has the memory that the record will own; false without. */
bool record_memory(struct record *record);
/* Room for `count` more records in the table of this one; false without memory. */
bool record_reserve(struct state *state, const struct record *record, const uint64_t *hashes, uint32_t count);
/* Takes it in; an account, an outcome or a refund that is there already is overwritten. Never fails after
   record_refusal, record_memory and record_reserve. */
void record_add(struct state *state, struct record *record, enum record_use use);
void record_free(struct record *record);

#endif
