/* What `post` and `decide` share: whether a transaction was decided before, whether its id has expired, whether its own
   legs can be carried out, and recording what became of it. */
#ifndef TALLYSTICK_DECIDING_H
#define TALLYSTICK_DECIDING_H

#include "busy.h"
#include "reply.h"

#define OUT_OF_MEMORY "OOM the shard has no memory left for this command"

struct deciding {
    struct call *call;
    struct busy busy;
    struct needs needs;
    uint32_t begun_accounts;
    unsigned char *scratch; /* FINGERPRINT_SCRATCH bytes */
    int64_t cutoff_ms;      /* ids that are older, and not remembered, have expired */
    int64_t raised_ms;      /* what the horizon rises to, for an id was answered as expired; 0 for none */
};

/* Bytes of the arena, for calls of so many transactions. */
size_t deciding_memory(uint32_t rows);
void deciding_begin(struct call *call, struct deciding *deciding, uint32_t rows);

/* One transaction on its way to an answer. */
struct decision {
    uint64_t fingerprint;
    uint8_t code, leg;
    uint32_t other;       /* a record's number, of what BUSY and ELSEWHERE are about; else NO_RECORD */
    bool other_is_commit; /* ELSEWHERE */
};

/* R3: what is remembered of it, as it is answered to another attempt: SETTLED or ELSEWHERE when it was committed. False
   for nothing. */
bool deciding_recall(const struct deciding *deciding, const struct work *work, uint32_t row,
                     struct decision *decision);
/* Whether its id has expired; what is answered so stays so, whatever clocks and settings do later. */
bool deciding_expires(struct deciding *deciding, const struct work *work, uint32_t row);
/* Whether own legs can be carried out: CODE_COMMITTED, a refusal, or CODE_BUSY. `number` is that of busy_add. */
void deciding_judge(struct deciding *deciding, const struct work *work, uint32_t row, uint32_t number,
                    struct decision *decision);
/* R1: writes the outcome, which there is none of. `tick`: a commit's own, or 0 for the call's time. */
void deciding_record(struct deciding *deciding, const struct work *work, uint32_t row,
                     const struct decision *decision, uint64_t tick);
/* The tick that the next commit gets: no other has it, and they rise. */
uint64_t deciding_next_tick(const struct deciding *deciding);
/* Raises the horizon as far as the call's answers need it: noted, or recalled. False when the log has no such note. */
bool deciding_raise_horizon(struct deciding *deciding);
/* Takes back system accounts that began for nothing. */
void deciding_end(struct deciding *deciding);

#endif
