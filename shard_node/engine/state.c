/* Making and ending what a shard holds. See state.h. */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Bits of records a chunk, and segments of the index. A chunk is a few hundred KB where there may be millions of
   records, so that an empty shard is small and one more chunk is soon had; so many segments that growing one is done
   in well under a millisecond when there are fifty million records. */
#define ACCOUNT_CHUNK 12u
#define ACCOUNT_SEGMENTS 1024u
#define OUTCOME_CHUNK 12u
#define OUTCOME_SEGMENTS 1024u
#define PURCHASE_CHUNK 10u
#define PURCHASE_SEGMENTS 256u
#define ENDED_CHUNK 12u
#define ENDED_SEGMENTS 64u
#define CONDITION_CHUNK 10u
#define CONDITION_SEGMENTS 256u
#define KEPT_CHUNK 6u
#define KEPT_SEGMENTS 1u

static link *heads_new(void) {
    link *heads = RM_TryAlloc(SLOT_PLACES * sizeof *heads);
    if (heads) memset(heads, 0, SLOT_PLACES * sizeof *heads);
    return heads;
}

bool generation_init(struct generation *generation) {
    *generation = (struct generation){0};
    return table_init(&generation->outcomes, sizeof(struct outcome), OUTCOME_CHUNK, OUTCOME_SEGMENTS) &&
           table_init(&generation->purchases, sizeof(struct purchase), PURCHASE_CHUNK, PURCHASE_SEGMENTS) &&
           table_init(&generation->ended, sizeof(struct ended), ENDED_CHUNK, ENDED_SEGMENTS) &&
           (generation->outcome_heads = heads_new()) && (generation->purchase_heads = heads_new());
}

void generation_free(struct generation *generation) {
    table_free(&generation->outcomes);
    table_free(&generation->purchases);
    table_free(&generation->ended);
    RM_Free(generation->outcome_heads);
    RM_Free(generation->purchase_heads);
}

struct state *state_new(void) {
    struct state *state = RM_TryAlloc(sizeof *state);
    if (!state) return NULL;
    memset(state, 0, sizeof *state);
    RM_GetRandomBytes((unsigned char *)&state->seed, sizeof state->seed);
    bool done = table_init(&state->accounts, sizeof(struct account), ACCOUNT_CHUNK, ACCOUNT_SEGMENTS) &&
                table_init(&state->holds, sizeof(struct hold), CONDITION_CHUNK, CONDITION_SEGMENTS) &&
                table_init(&state->refunds, sizeof(struct refund), CONDITION_CHUNK, CONDITION_SEGMENTS) &&
                table_init(&state->attempts, sizeof(struct attempt), KEPT_CHUNK, KEPT_SEGMENTS) &&
                table_init(&state->commits, sizeof(struct commit), KEPT_CHUNK, KEPT_SEGMENTS) &&
                table_init(&state->commit_ticks, sizeof(struct tick_of), KEPT_CHUNK, KEPT_SEGMENTS) &&
                (state->account_heads = heads_new()) && (state->hold_heads = heads_new()) &&
                (state->refund_heads = heads_new()) && generation_init(&state->generations[0]) &&
                generation_init(&state->generations[1]);
    if (done) return state;
    state_free(state);
    return NULL;
}

void state_free(struct state *state) {
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->accounts, &walk)) != NO_RECORD;)
        account_release(state, table_record(&state->accounts, number));
    for (struct table_walk walk = {0}; (number = table_walk(&state->holds, &walk)) != NO_RECORD;)
        hold_release(state, table_record(&state->holds, number));
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;)
        attempt_release(state, table_record(&state->attempts, number));
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;)
        commit_release(state, table_record(&state->commits, number));
    table_free(&state->accounts);
    table_free(&state->holds);
    table_free(&state->refunds);
    table_free(&state->attempts);
    table_free(&state->commits);
    table_free(&state->commit_ticks);
    RM_Free(state->account_heads);
    RM_Free(state->hold_heads);
    RM_Free(state->refund_heads);
    RM_Free(state->due);
    generation_free(&state->generations[0]);
    generation_free(&state->generations[1]);
    RM_Free(state->arena.base);
    RM_Free(state);
}

size_t state_memory(const struct state *state) {
    size_t bytes = sizeof *state + state->arena.size + state->kept_bytes + 7u * SLOT_PLACES * sizeof(link) +
                   state->due_room * sizeof *state->due + table_memory(&state->accounts) +
                   table_memory(&state->holds) + table_memory(&state->refunds) + table_memory(&state->attempts) +
                   table_memory(&state->commits) + table_memory(&state->commit_ticks);
    for (int i = 0; i < 2; i++) {
        const struct generation *generation = &state->generations[i];
        bytes += table_memory(&generation->outcomes) + table_memory(&generation->purchases) +
                 table_memory(&generation->ended);
    }
    return bytes;
}

void meta_set_fence(struct meta *meta) {
    int length = snprintf(meta->fence, sizeof meta->fence, "%s/%" PRId64, meta->shard, meta->epoch);
    meta->fence_length = (uint16_t)length;
}
