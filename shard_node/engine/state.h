/* What a shard holds. One value of the module's data type, under the key STATE_KEY; the ledger is a stream beside it.

   The state is a deterministic function of the log: nothing in it depends on addresses, on the seed of the tables or on
   a clock. Whoever changes it goes through the functions of accounts.h, outcomes.h, attempts.h and conditions.h. */
#ifndef TALLYSTICK_STATE_H
#define TALLYSTICK_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "redis_api.h"
#include "table.h"

#define STATE_KEY "tallystick"
#define LEDGER_KEY "ledger"
/* A fuzzer has fewer. */
#ifndef SLOTS
#define SLOTS 16384u
#endif
/* Slots, and one place more for system accounts, which are of no slot. */
#define SLOT_PLACES (SLOTS + 1u)
#define SHARD_NAME_BYTES 255u
#define INLINE_NAME_BYTES 21u
/* In `next` and in heads of lists: 0 for none, else a record's number plus one. */
typedef uint32_t link;

enum account_flags { ACCOUNT_STATE_MASK = 3, ACCOUNT_EXTRA = 4 };

/* Limits that most accounts do not have, and names that do not fit in: then `name` holds a pointer to this, which has
   the name, `name_length` bytes. */
struct account_extra {
    int64_t minimum, maximum_balance, maximum_transfer; /* minor units; 0 for no maximum */
    char name[];
};

struct account {
    int64_t available, held; /* minor units */
    int64_t coming;          /* the sum of prepared credits */
    int64_t version;
    link next; /* of the same slot */
    uint16_t slot;
    uint8_t state; /* enum account_state, with ACCOUNT_EXTRA */
    uint8_t name_length;
    char currency[3];
    char name[INLINE_NAME_BYTES];
};
_Static_assert(sizeof(struct account) == 64, "an account fills a cache line");

enum outcome_flags { OUTCOME_CODE_MASK = 63, OUTCOME_PURCHASE = 64, OUTCOME_ACROSS = 128 };

struct outcome {
    unsigned char id[ID_BYTES];
    uint64_t fingerprint;
    int64_t amount;        /* minor units, of the first leg */
    unsigned char tick[6]; /* 16 microseconds since 1970; of OUTCOME_ACROSS its commit's own */
    uint16_t slot;         /* the scope of the id */
    link next;             /* of the same slot and generation */
    uint16_t currency;     /* of the first leg, three letters in base 26 */
    uint8_t code;          /* with outcome_flags */
    uint8_t leg;
};
_Static_assert(sizeof(struct outcome) == 48, "memory of a remembered id");

/* Who paid whom in a committed purchase: the refund must know. Of the same generation as its outcome. */
struct purchase {
    link next;
    uint16_t slot;
    unsigned char id[ID_BYTES];
    uint8_t payer_length, payee_length;
    char names[2 * MAX_ACCOUNT_ID_BYTES];
};

struct hold {
    link next, previous;
    uint32_t account;  /* record number */
    uint32_t due;      /* place in the heap of holds by expiry; NO_RECORD while pinned */
    uint16_t slot;     /* the account's */
    uint16_t details_length;
    int64_t amount, expires_ms;
    uint64_t fingerprint;
    unsigned char id[ID_BYTES];
    unsigned char pinned_by[ATTEMPT_BYTES]; /* zeros for none */
    char *details;                          /* of the transaction that made it, for the entry of its expiry */
};

struct refund {
    link next, previous;
    uint16_t slot; /* the customer account's */
    unsigned char id[ID_BYTES];
    int64_t sum; /* minor units; prepared ones count */
};

enum ended_state { ENDED_FINISHED = 1, ENDED_DECIDED = 2, ENDED_ABANDONED = 3 };

struct ended {
    link next; /* of the same generation, in order of arrival */
    unsigned char id[ATTEMPT_BYTES];
    uint8_t state;
};

/* One generation of what is forgotten in time. */
struct generation {
    struct table outcomes;   /* struct outcome */
    struct table purchases;  /* struct purchase */
    struct table ended;      /* struct ended */
    link *outcome_heads;     /* SLOT_PLACES */
    link *purchase_heads;    /* SLOT_PLACES */
    link ended_head;
    int64_t newest_id_ms;      /* the youngest UUIDv7 that was decided */
    int64_t newest_attempt_ms; /* the latest start of an attempt in `ended` */
};

/* On a participant: what an attempt keeps prepared. */
struct attempt {
    unsigned char id[ATTEMPT_BYTES];
    uint64_t serial;
    int64_t since_ms;
    RedisModuleString *decider; /* the deciding shard's id */
    RedisModuleString *bundle;
    uint8_t owner;
    bool reserving; /* holds something of an account back */
    uint16_t rows;
    uint32_t leg_count; /* own legs */
    uint32_t *accounts; /* record numbers of own legs, in the bundle's order; meaningless where not PREPARED */
    uint8_t *codes;     /* a byte a transaction: PREPARED, a refusal, 0 where it owns no leg */
    uint8_t *legs;      /* a byte a transaction: the leg that a refusal concerns */
};

struct participant {
    char *name; /* a shard's id */
    uint8_t name_length;
    bool finished;
};

/* On the deciding shard: what an attempt committed, until all participants have finished. */
struct commit {
    unsigned char id[ATTEMPT_BYTES];
    uint64_t serial;
    uint64_t tick;
    int64_t since_ms;
    RedisModuleString *bundle;
    uint16_t rows;
    uint8_t participant_count, unfinished;
    struct participant *participants;
    uint8_t *codes; /* a byte a transaction */
    uint8_t *legs;
};

struct meta {
    char shard[SHARD_NAME_BYTES + 1]; /* cluster/shard; "" before the first bind */
    char fence[SHARD_NAME_BYTES + 24];
    uint16_t shard_length, fence_length;
    int64_t epoch, window_ms;
    int64_t backlog, backlog_limit; /* ledger entries */
    int64_t horizon_ms;             /* UUIDv7 before this that are not remembered are expired */
    int64_t attempt_horizon_ms;     /* so are attempts that started before this */
    int64_t used_us;                /* the last time that was used, since 1970 */
    uint64_t frame_ms, frame_sequence; /* the id of the ledger's last frame */
    uint64_t last_tick;
    int64_t rotated_ms;
    uint64_t serial; /* the last one given to an attempt or commit */
    uint64_t calls;  /* commands that may have changed something */
    uint64_t alarms, expired_finishes;
    /* The archive: the last batch that is stored. */
    uint64_t archived_number;
    uint64_t archived_ms, archived_sequence;
    char archived_head[64];
    uint8_t archived_head_length;
};

/* Memory that lasts for one call; it is kept between calls, so that a call need not ask for it. */
struct arena {
    unsigned char *base;
    size_t size, used;
};

struct state {
    struct meta meta;
    struct arena arena;
    uint64_t seed; /* of the tables' hashes; of this process */
    struct table accounts;
    link *account_heads; /* SLOT_PLACES */
    struct table holds, refunds;
    link *hold_heads, *refund_heads; /* SLOT_PLACES */
    uint32_t *due;                   /* heap of numbers of holds that are not pinned, by expiry, then id and slot */
    uint32_t due_count, due_room;
    struct generation generations[2]; /* [current], [!current] */
    uint8_t current;
    struct table attempts;       /* struct attempt, found by id */
    struct table commits;        /* struct commit, found by id */
    struct table commit_ticks;   /* struct tick_of, found by tick */
    uint32_t reserving_attempts; /* kept ones that hold something of an account back */
    size_t kept_bytes;           /* memory beside the tables: what records of accounts, holds, attempts, commits own */
};

struct tick_of {
    uint64_t tick;
    uint32_t commit; /* record number */
};

struct state *state_new(void); /* NULL without memory */
void state_free(struct state *state);
size_t state_memory(const struct state *state); /* bytes */
/* The fence of a shard and an epoch: shard/epoch. */
void meta_set_fence(struct meta *meta);
bool generation_init(struct generation *generation); /* false without memory; generation_free either way */
void generation_free(struct generation *generation);
/* Give back the memory that a record owns, and take it off kept_bytes; the record itself stays where it is. Each is
   written beside what makes such records. */
void account_release(struct state *state, struct account *account);
void hold_release(struct state *state, struct hold *hold);
void attempt_release(struct state *state, struct attempt *attempt);
void commit_release(struct state *state, struct commit *commit);

#endif
