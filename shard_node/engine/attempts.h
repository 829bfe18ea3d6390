/* What attempts leave on a shard until they end: what a participant keeps prepared, what the deciding shard committed,
   and, for a while, that they ended.

   Invariants: an attempt's id is in `attempts` at most once and so in `commits`; each commit has a tick of its own, by
   which outcomes that it committed find it; a commit is kept until all its participants have finished (R6). */
#ifndef TALLYSTICK_ATTEMPTS_H
#define TALLYSTICK_ATTEMPTS_H

#include "outcomes.h"

/* No attempt starts later than now by more than this: its id would be remembered for too long. */
#define MAX_ATTEMPT_AHEAD_MS 60000

uint64_t attempt_hash(const struct state *state, const unsigned char id[ATTEMPT_BYTES]);
uint64_t tick_hash(uint64_t tick);
/* When an attempt started, ms since 1970, by the clock of who made it: the first bytes of its id. */
static inline int64_t attempt_start_ms(const unsigned char id[ATTEMPT_BYTES]) {
    int64_t ms = 0;
    for (int i = 0; i < 6; i++) ms = ms << 8 | id[i];
    return ms;
}
/* Whether what is known of it may be forgotten (R10). */
static inline bool attempt_is_expired(const struct state *state, const unsigned char id[ATTEMPT_BYTES]) {
    return attempt_start_ms(id) < state->meta.attempt_horizon_ms;
}

/* ------------------------------------------------------------------ participant */

static inline struct attempt *attempt_at(const struct state *state, uint32_t number) {
    return table_record(&state->attempts, number);
}
/* NO_RECORD for none. */
uint32_t attempt_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]);
/* Memory for the columns of an attempt of so many transactions and own legs; false without. */
bool attempt_room(struct attempt *attempt, uint32_t rows, uint32_t legs);
void attempt_room_free(struct attempt *attempt);
/* Keeps a copy, which owns the columns and holds the bundle and the decider from now on; its serial is set here. Only
   after table_reserve. The number of the record. */
uint32_t attempt_keep(struct state *state, const struct attempt *attempt);
/* Forgets it; its legs have been applied or released before. */
void attempt_drop(struct state *state, uint32_t number);

/* ------------------------------------------------------------------ deciding shard */

static inline struct commit *commit_at(const struct state *state, uint32_t number) {
    return table_record(&state->commits, number);
}
uint32_t commit_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]);
uint32_t commit_find_tick(const struct state *state, uint64_t tick);
/* The commit that is kept and that committed this outcome; NO_RECORD when it is settled, or when there was none. */
uint32_t commit_of(const struct state *state, const struct outcome *outcome);
/* How many participants there are, of which each is a byte and as many bytes of a name; -1 when they are not. */
int participants_count(const unsigned char *packed, size_t size);
/* Memory for the columns and the participants; false without. */
bool commit_room(struct commit *commit, uint32_t rows, const unsigned char *participants, size_t size);
void commit_room_free(struct commit *commit);
/* Keeps a copy; its serial is set here. Only after table_reserve of commits and commit_ticks. */
uint32_t commit_keep(struct state *state, const struct commit *commit);
void commit_drop(struct state *state, uint32_t number);
/* Participant `number`, 1 or more, has finished. A commit that all have finished is dropped. */
void commit_settle(struct state *state, const unsigned char id[ATTEMPT_BYTES], uint8_t number);

/* ------------------------------------------------------------------ ended */

/* enum ended_state, or 0: nothing is known. */
uint8_t ended_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]);
/* Only after table_reserve of `ended` of that generation. Of an id that is in it already the state changes. */
void ended_add(struct state *state, struct generation *generation, const unsigned char id[ATTEMPT_BYTES],
               enum ended_state how);

#endif
