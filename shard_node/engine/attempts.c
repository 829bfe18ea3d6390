/* See attempts.h. */
#include "attempts.h"

#include <assert.h>

static size_t string_size(const RedisModuleString *string) {
    size_t size;
    RM_StringPtrLen(string, &size);
    return size;
}

uint64_t attempt_hash(const struct state *state, const unsigned char id[ATTEMPT_BYTES]) {
    return scoped_hash(state, id, 0);
}

uint64_t tick_hash(uint64_t tick) { return mix(tick ^ FOLD_K1, FOLD_K2); }

/* ------------------------------------------------------------------ participant */

uint32_t attempt_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]) {
    uint64_t hash = attempt_hash(state, id);
    const struct segment *segment = table_segment(&state->attempts, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD)
        if (!memcmp(attempt_at(state, number)->id, id, ATTEMPT_BYTES)) break;
    return number;
}

static size_t attempt_room_bytes(uint32_t rows, uint32_t legs) { return legs * sizeof(uint32_t) + 2u * (size_t)rows; }

bool attempt_room(struct attempt *attempt, uint32_t rows, uint32_t legs) {
    attempt->accounts = RM_TryAlloc(attempt_room_bytes(rows, legs));
    if (!attempt->accounts) return false;
    attempt->rows = (uint16_t)rows;
    attempt->leg_count = legs;
    attempt->codes = (uint8_t *)(attempt->accounts + legs);
    attempt->legs = attempt->codes + rows;
    return true;
}

void attempt_room_free(struct attempt *attempt) {
    RM_Free(attempt->accounts);
    attempt->accounts = NULL;
    attempt->codes = attempt->legs = NULL;
}

/* Memory that an attempt owns beside its record. */
static size_t attempt_bytes(const struct attempt *attempt) {
    return attempt_room_bytes(attempt->rows, attempt->leg_count) + string_size(attempt->bundle) +
           string_size(attempt->decider);
}

uint32_t attempt_keep(struct state *state, const struct attempt *given) {
    uint32_t number = table_add(&state->attempts, attempt_hash(state, given->id));
    struct attempt *attempt = attempt_at(state, number);
    *attempt = *given;
    attempt->serial = ++state->meta.serial;
    attempt->bundle = RM_HoldString(NULL, given->bundle);
    attempt->decider = RM_HoldString(NULL, given->decider);
    state->reserving_attempts += attempt->reserving;
    state->kept_bytes += attempt_bytes(attempt);
    return number;
}

void attempt_release(struct state *state, struct attempt *attempt) {
    state->kept_bytes -= attempt_bytes(attempt);
    RM_FreeString(NULL, attempt->bundle);
    RM_FreeString(NULL, attempt->decider);
    attempt_room_free(attempt);
}

void attempt_drop(struct state *state, uint32_t number) {
    struct attempt *attempt = attempt_at(state, number);
    state->reserving_attempts -= attempt->reserving;
    attempt_release(state, attempt);
    table_remove(&state->attempts, attempt_hash(state, attempt->id), number);
}

/* ------------------------------------------------------------------ deciding shard */

uint32_t commit_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]) {
    uint64_t hash = attempt_hash(state, id);
    const struct segment *segment = table_segment(&state->commits, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD)
        if (!memcmp(commit_at(state, number)->id, id, ATTEMPT_BYTES)) break;
    return number;
}

static struct tick_of *tick_at(const struct state *state, uint32_t number) {
    return table_record(&state->commit_ticks, number);
}

static uint32_t tick_find(const struct state *state, uint64_t tick) {
    uint64_t hash = tick_hash(tick);
    const struct segment *segment = table_segment(&state->commit_ticks, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD)
        if (tick_at(state, number)->tick == tick) break;
    return number;
}

uint32_t commit_find_tick(const struct state *state, uint64_t tick) {
    uint32_t number = tick_find(state, tick);
    return number == NO_RECORD ? NO_RECORD : tick_at(state, number)->commit;
}

uint32_t commit_of(const struct state *state, const struct outcome *outcome) {
    return outcome->code & OUTCOME_ACROSS ? commit_find_tick(state, tick_number(outcome->tick)) : NO_RECORD;
}

int participants_count(const unsigned char *packed, size_t size) {
    int count = 0;
    for (size_t at = 0; at < size; at += 1u + packed[at], count++)
        if (!packed[at] || size - at - 1u < packed[at]) return -1;
    return count;
}

static size_t commit_room_bytes(uint32_t rows, int participants, size_t packed) {
    return (size_t)participants * sizeof(struct participant) + 2u * (size_t)rows + packed;
}

bool commit_room(struct commit *commit, uint32_t rows, const unsigned char *packed, size_t size) {
    int count = participants_count(packed, size);
    assert(count > 0 && count < ALL_OWNERS);
    commit->participants = RM_TryAlloc(commit_room_bytes(rows, count, size));
    if (!commit->participants) return false;
    commit->rows = (uint16_t)rows;
    commit->participant_count = commit->unfinished = (uint8_t)count;
    commit->codes = (uint8_t *)(commit->participants + count);
    commit->legs = commit->codes + rows;
    char *name = (char *)(commit->legs + rows);
    for (int i = 0; i < count; i++) {
        uint8_t length = *packed++;
        memcpy(name, packed, length);
        commit->participants[i] = (struct participant){.name = name, .name_length = length};
        name += length;
        packed += length;
    }
    return true;
}

void commit_room_free(struct commit *commit) {
    RM_Free(commit->participants);
    commit->participants = NULL;
    commit->codes = commit->legs = NULL;
}

static size_t commit_bytes(const struct commit *commit) {
    size_t packed = 0;
    for (int i = 0; i < commit->participant_count; i++) packed += 1u + commit->participants[i].name_length;
    return commit_room_bytes(commit->rows, commit->participant_count, packed) + string_size(commit->bundle);
}

uint32_t commit_keep(struct state *state, const struct commit *given) {
    uint32_t number = table_add(&state->commits, attempt_hash(state, given->id));
    struct commit *commit = commit_at(state, number);
    *commit = *given;
    commit->serial = ++state->meta.serial;
    commit->bundle = RM_HoldString(NULL, given->bundle);
    state->kept_bytes += commit_bytes(commit);
    struct tick_of *tick = tick_at(state, table_add(&state->commit_ticks, tick_hash(commit->tick)));
    *tick = (struct tick_of){.tick = commit->tick, .commit = number};
    return number;
}

void commit_release(struct state *state, struct commit *commit) {
    state->kept_bytes -= commit_bytes(commit);
    RM_FreeString(NULL, commit->bundle);
    commit_room_free(commit);
}

void commit_drop(struct state *state, uint32_t number) {
    struct commit *commit = commit_at(state, number);
    table_remove(&state->commit_ticks, tick_hash(commit->tick), tick_find(state, commit->tick));
    commit_release(state, commit);
    table_remove(&state->commits, attempt_hash(state, commit->id), number);
}

void commit_settle(struct state *state, const unsigned char id[ATTEMPT_BYTES], uint8_t number) {
    uint32_t found = commit_find(state, id);
    if (found == NO_RECORD) return;
    struct commit *commit = commit_at(state, found);
    if (!number || number > commit->participant_count) return;
    struct participant *participant = &commit->participants[number - 1u];
    commit->unfinished = (uint8_t)(commit->unfinished - !participant->finished);
    participant->finished = true;
    if (!commit->unfinished) commit_drop(state, found);
}

/* ------------------------------------------------------------------ ended */

static struct ended *ended_find_in(const struct generation *generation, const unsigned char id[ATTEMPT_BYTES],
                                   uint64_t hash) {
    const struct segment *segment = table_segment(&generation->ended, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD) {
        struct ended *ended = table_record(&generation->ended, number);
        if (!memcmp(ended->id, id, ATTEMPT_BYTES)) return ended;
    }
    return NULL;
}

uint8_t ended_find(const struct state *state, const unsigned char id[ATTEMPT_BYTES]) {
    uint64_t hash = attempt_hash(state, id);
    const struct ended *ended = ended_find_in(&state->generations[state->current], id, hash);
    if (!ended) ended = ended_find_in(previous_generation(state), id, hash);
    return ended ? ended->state : 0;
}

void ended_add(struct state *state, struct generation *generation, const unsigned char id[ATTEMPT_BYTES],
               enum ended_state how) {
    uint64_t hash = attempt_hash(state, id);
    struct ended *ended = ended_find_in(generation, id, hash);
    if (!ended) {
        uint32_t number = table_add(&generation->ended, hash);
        ended = table_record(&generation->ended, number);
        memcpy(ended->id, id, ATTEMPT_BYTES);
        ended->next = generation->ended_head;
        generation->ended_head = number + 1u;
    }
    ended->state = (uint8_t)how;
    int64_t ms = attempt_start_ms(id);
    if (ms > generation->newest_attempt_ms) generation->newest_attempt_ms = ms;
}
