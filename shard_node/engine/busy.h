/* R9: what an earlier attempt at a transaction keeps reserved must not have a later one refused.

   Before a refusal that a reservation may have caused becomes a verdict, the kept attempts are searched for another one
   that has the same transaction prepared; if there is one, there is no verdict but CODE_BUSY, and nothing is recorded.
   The search goes over all that is kept, once a call and only when it is needed: it marks the call's own transactions,
   so its memory is bounded by the call. */
#ifndef TALLYSTICK_BUSY_H
#define TALLYSTICK_BUSY_H

#include "attempts.h"
#include "work.h"

struct wanted {
    const unsigned char *id, *attempt; /* attempt: the one that asks, NULL of a post */
    uint16_t slot;
    link next;      /* of the same place of the index */
    uint32_t first; /* the number of the first one that is the same and is asked by the same attempt; only that is in
                       the index */
    uint32_t found; /* the attempt that keeps it prepared: of several, that with the lowest id; NO_RECORD for none */
};

struct busy {
    struct state *state;
    struct wanted *wanted; /* a transaction of the call */
    uint32_t wanted_count, mask;
    link *index;
    bool searched;
};

/* Bytes of the arena for calls of so many transactions. */
size_t busy_memory(uint32_t rows);
void busy_begin(struct call *call, struct busy *busy, uint32_t rows);
/* Adds a bundle's transactions; they are numbered on from those before. `attempt` is the one that asks, NULL of a post.
   The number of the first one. */
uint32_t busy_add(struct busy *busy, const struct bundle *bundle, const unsigned char *attempt);
/* An attempt was kept by this very call. */
void busy_kept(struct busy *busy, uint32_t attempt);

/* As work_judge. CODE_BUSY for either reason; then *other is the number of the attempt that is in the way. `number` is
   the transaction's of busy_add. */
struct judgement busy_judge(const struct call *call, struct busy *busy, const struct work *work, uint32_t row,
                            uint32_t number, bool reserving, uint32_t *other);

#endif
