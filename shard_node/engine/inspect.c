/* Looking into a shard: what is in doubt, for recovery; an account and the shard itself, for people. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accounts.h"
#include "attempts.h"
#include "call.h"
#include "shell.h"

#define MAX_IN_DOUBT 1024
/* One answer has about so many bytes of bundles at most, and one bundle at least. */
#define IN_DOUBT_BYTES (16u * 1024u * 1024u)

/* ------------------------------------------------------------------ in_doubt */

struct doubt {
    uint64_t serial;
    const struct attempt *attempt; /* else it is a commit */
    const struct commit *commit;
};

static int by_serial(const void *a, const void *b) {
    uint64_t one = ((const struct doubt *)a)->serial, other = ((const struct doubt *)b)->serial;
    return (one > other) - (one < other);
}

/* All that have a later serial number, in their order. */
static uint32_t collect(const struct state *state, uint64_t after, struct doubt *doubts) {
    uint32_t number, count = 0;
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;) {
        const struct attempt *attempt = attempt_at(state, number);
        if (attempt->serial > after) doubts[count++] = (struct doubt){attempt->serial, attempt, NULL};
    }
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;) {
        const struct commit *commit = commit_at(state, number);
        if (commit->serial > after) doubts[count++] = (struct doubt){commit->serial, NULL, commit};
    }
    qsort(doubts, count, sizeof *doubts, by_serial);
    return count;
}

static size_t reply_string(RedisModuleCtx *ctx, const RedisModuleString *string) {
    size_t size;
    const char *bytes = RM_StringPtrLen(string, &size);
    RM_ReplyWithStringBuffer(ctx, bytes, size);
    return size;
}

static void reply_id(RedisModuleCtx *ctx, const unsigned char *id) {
    RM_ReplyWithStringBuffer(ctx, (const char *)id, ATTEMPT_BYTES);
}

/* [serial, "attempt", id, since_ms, decider, owner, codes, bundle]; how many bytes the bundle has. */
static size_t reply_attempt(RedisModuleCtx *ctx, const struct attempt *attempt) {
    RM_ReplyWithArray(ctx, 8);
    RM_ReplyWithLongLong(ctx, (long long)attempt->serial);
    RM_ReplyWithSimpleString(ctx, "attempt");
    reply_id(ctx, attempt->id);
    RM_ReplyWithLongLong(ctx, attempt->since_ms);
    reply_string(ctx, attempt->decider);
    RM_ReplyWithLongLong(ctx, attempt->owner);
    RM_ReplyWithStringBuffer(ctx, (const char *)attempt->codes, attempt->rows);
    return reply_string(ctx, attempt->bundle);
}

/* [serial, "commit", id, since_ms, [[name, 1 when it has finished], ...], codes, bundle] */
static size_t reply_commit(RedisModuleCtx *ctx, const struct commit *commit) {
    RM_ReplyWithArray(ctx, 7);
    RM_ReplyWithLongLong(ctx, (long long)commit->serial);
    RM_ReplyWithSimpleString(ctx, "commit");
    reply_id(ctx, commit->id);
    RM_ReplyWithLongLong(ctx, commit->since_ms);
    RM_ReplyWithArray(ctx, commit->participant_count);
    for (int i = 0; i < commit->participant_count; i++) {
        const struct participant *participant = &commit->participants[i];
        RM_ReplyWithArray(ctx, 2);
        RM_ReplyWithStringBuffer(ctx, participant->name, participant->name_length);
        RM_ReplyWithLongLong(ctx, participant->finished);
    }
    RM_ReplyWithStringBuffer(ctx, (const char *)commit->codes, commit->rows);
    return reply_string(ctx, commit->bundle);
}

enum call_result body_in_doubt(struct call *call) {
    const struct state *state = call->state;
    int64_t after, limit;
    struct doubt *doubts;
    if (!call_number(call, 0, 0, INT64_MAX, &after)) return call_refuse(call, "ERR malformed serial number");
    if (!call_number(call, 1, 1, MAX_IN_DOUBT, &limit))
        return call_refuse(call, "ERR malformed count: 1 to %d", MAX_IN_DOUBT);
    size_t all = (size_t)state->attempts.live + state->commits.live;
    if (!arena_begin(call, all * sizeof *doubts + ARENA_SLACK)) return call_refuse(call, "OOM no memory to list them");
    doubts = arena_take(call, all * sizeof *doubts);
    uint32_t count = collect(state, (uint64_t)after, doubts), told = 0;
    size_t bytes = 0;
    RM_ReplyWithArray(call->ctx, REDIS_POSTPONED_LENGTH);
    for (; told < count && told < (uint32_t)limit && bytes < IN_DOUBT_BYTES; told++) {
        const struct doubt *doubt = &doubts[told];
        bytes += doubt->attempt ? reply_attempt(call->ctx, doubt->attempt) : reply_commit(call->ctx, doubt->commit);
    }
    RM_ReplySetArrayLength(call->ctx, told);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ for people */

static void reply_number(RedisModuleCtx *ctx, const char *name, int64_t number) {
    RM_ReplyWithSimpleString(ctx, name);
    RM_ReplyWithLongLong(ctx, number);
}

static void reply_word(RedisModuleCtx *ctx, const char *name, const char *word, size_t length) {
    RM_ReplyWithSimpleString(ctx, name);
    RM_ReplyWithStringBuffer(ctx, word, length);
}

enum call_result body_account(struct call *call) {
    static const char *const states[] = {"open", "frozen", "closed"};
    size_t length;
    const char *name = (const char *)call_bytes(call, 0, &length);
    uint32_t size = length <= MAX_ACCOUNT_ID_BYTES ? (uint32_t)length : 0;
    uint32_t number = account_find(call->state, name, size, account_hash(call->state, name, size));
    if (!size || number == NO_RECORD) {
        RM_ReplyWithNull(call->ctx);
        return CALL_DONE;
    }
    const struct account *account = account_at(call->state, number);
    const struct account_extra *extra = account_extra(account);
    const char *state = states[account->state & ACCOUNT_STATE_MASK];
    RM_ReplyWithMap(call->ctx, 10);
    reply_word(call->ctx, "state", state, strlen(state));
    reply_word(call->ctx, "currency", account->currency, sizeof account->currency);
    reply_number(call->ctx, "available_minor", account->available);
    reply_number(call->ctx, "held_minor", account->held);
    reply_number(call->ctx, "coming_minor", account->coming);
    reply_number(call->ctx, "minimum_balance_minor", account_minimum(account));
    reply_number(call->ctx, "maximum_balance_minor", extra ? extra->maximum_balance : 0);
    reply_number(call->ctx, "maximum_transfer_minor", extra ? extra->maximum_transfer : 0);
    reply_number(call->ctx, "version", account->version);
    reply_number(call->ctx, "slot", account->slot);
    return CALL_DONE;
}

static int64_t oldest_ms(const struct state *state) {
    int64_t oldest = INT64_MAX;
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;)
        if (attempt_at(state, number)->since_ms < oldest) oldest = attempt_at(state, number)->since_ms;
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;)
        if (commit_at(state, number)->since_ms < oldest) oldest = commit_at(state, number)->since_ms;
    return oldest;
}

static void reply_holdings(struct call *call) {
    const struct state *state = call->state;
    const struct generation *younger = &state->generations[state->current];
    const struct generation *older = &state->generations[!state->current];
    int64_t oldest = oldest_ms(state);
    reply_number(call->ctx, "accounts", state->accounts.live);
    reply_number(call->ctx, "holds", state->holds.live);
    reply_number(call->ctx, "refunded_purchases", state->refunds.live);
    reply_number(call->ctx, "outcomes_younger", younger->outcomes.live);
    reply_number(call->ctx, "outcomes_older", older->outcomes.live);
    reply_number(call->ctx, "ended_attempts", (int64_t)younger->ended.live + older->ended.live);
    reply_number(call->ctx, "prepared_attempts", state->attempts.live);
    reply_number(call->ctx, "unsettled_commits", state->commits.live);
    reply_number(call->ctx, "oldest_in_doubt_ms", oldest == INT64_MAX ? 0 : call_now_ms(call) - oldest);
    reply_number(call->ctx, "memory_bytes", (int64_t)state_memory(state));
}

enum call_result body_info(struct call *call) {
    const struct meta *meta = &call->state->meta;
    char text[48];
    RM_ReplyWithMap(call->ctx, 27);
    reply_word(call->ctx, "shard", meta->shard, meta->shard_length);
    reply_number(call->ctx, "epoch", meta->epoch);
    reply_number(call->ctx, "window_ms", meta->window_ms);
    reply_holdings(call);
    reply_number(call->ctx, "backlog_entries", meta->backlog);
    reply_number(call->ctx, "backlog_limit", meta->backlog_limit);
    int length = snprintf(text, sizeof text, "%" PRIu64 "-%" PRIu64, meta->frame_ms, meta->frame_sequence);
    reply_word(call->ctx, "last_frame", text, (size_t)length);
    reply_number(call->ctx, "archived_number", (int64_t)meta->archived_number);
    reply_word(call->ctx, "archived_head", meta->archived_head, meta->archived_head_length);
    length = snprintf(text, sizeof text, "%" PRIu64 "-%" PRIu64, meta->archived_ms, meta->archived_sequence);
    reply_word(call->ctx, "archived_frame", text, (size_t)length);
    reply_number(call->ctx, "horizon_ms", meta->horizon_ms);
    reply_number(call->ctx, "attempt_horizon_ms", meta->attempt_horizon_ms);
    reply_number(call->ctx, "rotated_ms", meta->rotated_ms);
    reply_number(call->ctx, "calls", (int64_t)meta->calls);
    reply_number(call->ctx, "alarms", (int64_t)meta->alarms);
    reply_number(call->ctx, "expired_finishes", (int64_t)meta->expired_finishes);
    reply_number(call->ctx, "now_ms", call_now_ms(call));
    /* Above zero: the wall clock jumped ahead and is not followed, see tallystick.time. */
    reply_number(call->ctx, "clock_lag_ms", engine.clock.lag_us / 1000);
    return CALL_DONE;
}
