/* See digest.h. A digest is a sum modulo 2^64 of the hashes of records, so that their order does not matter. */
#include "digest.h"

#include <string.h>

#include "call.h"
#include "records.h"

/* Seeds of hashes, so that a record of one kind is not taken for one of another. */
enum { SEED_SLOT = 1, SEED_COMING, SEED_ATTEMPT, SEED_COMMIT, SEED_ENDED, SEED_META };

uint64_t digest_of_slot(const struct state *state, uint16_t slot) {
    unsigned char bytes[MAX_RECORD_BYTES];
    uint64_t sum = 0;
    for (enum slot_part part = 0; part < SLOT_PARTS; part++)
        for (link at = part_first(state, part, slot); at; at = part_next(state, part, at)) {
            if (part_repeats(state, part, at)) continue;
            sum += fold(bytes, record_write(state, part, at, FOR_DIGEST, bytes), SEED_SLOT);
        }
    return sum;
}

static uint64_t fold_string(const RedisModuleString *string, uint64_t seed) {
    size_t size;
    const char *bytes = RM_StringPtrLen(string, &size);
    return fold(bytes, size, seed);
}

static uint64_t digest_of_attempt(const struct attempt *attempt) {
    uint64_t h = fold(attempt->id, ATTEMPT_BYTES, SEED_ATTEMPT);
    const uint64_t numbers[] = {attempt->serial, (uint64_t)attempt->since_ms, attempt->owner, attempt->reserving};
    h = fold(numbers, sizeof numbers, h);
    h = fold(attempt->codes, attempt->rows, h);
    h = fold(attempt->legs, attempt->rows, h);
    return fold_string(attempt->bundle, fold_string(attempt->decider, h));
}

static uint64_t digest_of_commit(const struct commit *commit) {
    uint64_t h = fold(commit->id, ATTEMPT_BYTES, SEED_COMMIT);
    const uint64_t numbers[] = {commit->serial, commit->tick, (uint64_t)commit->since_ms};
    h = fold(numbers, sizeof numbers, h);
    h = fold(commit->codes, commit->rows, h);
    h = fold(commit->legs, commit->rows, h);
    for (int i = 0; i < commit->participant_count; i++) {
        const struct participant *participant = &commit->participants[i];
        h = fold(participant->name, participant->name_length, h + participant->finished);
    }
    return fold_string(commit->bundle, h);
}

static uint64_t digest_of_ended(const struct generation *generation) {
    uint64_t sum = 0;
    for (link at = generation->ended_head; at;) {
        const struct ended *ended = table_record(&generation->ended, at - 1u);
        sum += fold(ended->id, ATTEMPT_BYTES, SEED_ENDED + ((uint64_t)ended->state << 8));
        at = ended->next;
    }
    return sum;
}

static uint64_t digest_of_generation(const struct generation *generation) {
    const uint64_t numbers[] = {(uint64_t)generation->newest_id_ms, (uint64_t)generation->newest_attempt_ms,
                                digest_of_ended(generation), generation->outcomes.live, generation->purchases.live};
    return fold(numbers, sizeof numbers, SEED_META);
}

/* The numbers of meta; its texts are hashed beside them. */
static uint64_t digest_of_meta(const struct meta *meta) {
    const uint64_t numbers[] = {
        (uint64_t)meta->epoch,      (uint64_t)meta->window_ms,          (uint64_t)meta->backlog,
        (uint64_t)meta->backlog_limit, (uint64_t)meta->horizon_ms,      (uint64_t)meta->attempt_horizon_ms,
        (uint64_t)meta->used_us,    meta->frame_ms,                     meta->frame_sequence,
        meta->last_tick,            (uint64_t)meta->rotated_ms,         meta->serial,
        meta->calls,                meta->alarms,                       meta->expired_finishes,
        meta->archived_number,      meta->archived_ms,                  meta->archived_sequence,
    };
    uint64_t h = fold(numbers, sizeof numbers, SEED_META);
    return fold(meta->shard, meta->shard_length, fold(meta->archived_head, meta->archived_head_length, h));
}

/* What prepared credits will bring, which a slot's digest leaves out. */
static uint64_t digest_of_coming(const struct state *state) {
    uint64_t sum = 0;
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->accounts, &walk)) != NO_RECORD;) {
        const struct account *account = account_at(state, number);
        if (account->coming)
            sum += fold(account_name(account), account->name_length, SEED_COMING + (uint64_t)account->coming);
    }
    return sum;
}

uint64_t digest_of_shard(const struct state *state) {
    uint64_t sum = digest_of_slot(state, SYSTEM_SLOT);
    uint32_t number;
    for (uint16_t slot = 0; slot < SLOTS; slot++) sum += digest_of_slot(state, slot);
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;)
        sum += digest_of_attempt(attempt_at(state, number));
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;)
        sum += digest_of_commit(commit_at(state, number));
    const uint64_t numbers[] = {
        sum,
        digest_of_coming(state),
        digest_of_generation(current_generation((struct state *)(uintptr_t)state)),
        digest_of_generation(previous_generation(state)),
        digest_of_meta(&state->meta),
        state->due_count,
    };
    return fold(numbers, sizeof numbers, SEED_META);
}

/* digest [SLOT] */
enum call_result body_digest(struct call *call) {
    int64_t slot = 0;
    if (call->count && !call_number(call, 0, 0, SLOTS - 1u, &slot))
        return call_refuse(call, "ERR malformed slot: 0 to %u", SLOTS - 1u);
    uint64_t digest = call->count ? digest_of_slot(call->state, (uint16_t)slot) : digest_of_shard(call->state);
    /* Redis' integers have a sign: the same 64 bits. */
    RM_ReplyWithLongLong(call->ctx, (long long)digest);
    return CALL_DONE;
}
