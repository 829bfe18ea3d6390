/* What keeps a shard in order: binding it to its place, forgetting, ending holds, trimming the ledger, marking the log.

   Invariant: what is forgotten is in the archive, where that is asked for, and the horizons rise above it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "accounts.h"
#include "conditions.h"
#include "outcomes.h"
#include "rows.h"

/* A frame of ended holds has about so many bytes at most. */
#define EXPIRED_BYTES (1024u * 1024u)
#define TOO_EARLY (-1)

/* ------------------------------------------------------------------ bind */

/* cluster/shard, in letters that are plain in logs. */
static bool is_shard_name(const unsigned char *name, size_t length) {
    if (!length || length > SHARD_NAME_BYTES) return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] > '~') return false;
    return memchr(name, '/', length) != NULL;
}

static void set_shard(struct meta *meta, const unsigned char *shard, size_t length, int64_t epoch) {
    memcpy(meta->shard, shard, length);
    meta->shard[length] = 0;
    meta->shard_length = (uint16_t)length;
    meta->epoch = epoch;
    meta_set_fence(meta);
}

enum call_result body_bind(struct call *call) {
    struct meta *meta = &call->state->meta;
    int64_t epoch, window_ms, backlog_limit;
    size_t length;
    const unsigned char *shard = call_bytes(call, 0, &length);
    if (!is_shard_name(shard, length)) return call_refuse(call, "ERR malformed shard: cluster/shard");
    if (!call_number(call, 1, 0, MAX_MINOR, &epoch)) return call_refuse(call, "ERR malformed epoch: a number");
    if (!call_number(call, 2, 0, MAX_MINOR, &window_ms)) return call_refuse(call, "ERR malformed window: milliseconds");
    if (!call_number(call, 3, 0, MAX_MINOR, &backlog_limit))
        return call_refuse(call, "ERR malformed backlog limit: a number");
    if (!call->replaying) {
        if (meta->shard_length && (meta->shard_length != length || memcmp(meta->shard, shard, length)))
            return call_refuse(call, "WRONG_SHARD this Redis holds %s", meta->shard);
        if (epoch < meta->epoch)
            return call_refuse(call, "STALE_EPOCH the shard is at epoch %" PRId64, meta->epoch);
    }
    set_shard(meta, shard, length, epoch);
    meta->window_ms = window_ms;
    meta->backlog_limit = backlog_limit;
    if (!call->replaying) RM_ReplyWithSimpleString(call->ctx, "OK");
    return CALL_DONE;
}

/* ------------------------------------------------------------------ rename */

/* The shard keeps its own id. The epoch rises, so that the fence is another one whatever the name is. */
enum call_result body_rename(struct call *call) {
    struct meta *meta = &call->state->meta;
    int64_t epoch;
    size_t length;
    unsigned char name[2u * SHARD_NAME_BYTES];
    const unsigned char *cluster = call_bytes(call, 0, &length);
    const char *shard = strchr(meta->shard, '/');
    const size_t shard_length = strlen(shard);
    if (!length || length > SHARD_NAME_BYTES || memchr(cluster, '/', length))
        return call_refuse(call, "ERR malformed cluster: a name without a slash");
    memcpy(name, cluster, length);
    memcpy(name + length, shard, shard_length);
    if (!is_shard_name(name, length + shard_length)) return call_refuse(call, "ERR malformed cluster: a name");
    if (!call_number(call, 1, 0, MAX_MINOR, &epoch)) return call_refuse(call, "ERR malformed epoch: a number");
    if (!call->replaying && epoch <= meta->epoch)
        return call_refuse(call, "STALE_EPOCH the shard is at epoch %" PRId64, meta->epoch);
    set_shard(meta, name, length + shard_length, epoch);
    if (!call->replaying) RM_ReplyWithSimpleString(call->ctx, "OK");
    return CALL_DONE;
}

/* ------------------------------------------------------------------ rotate */

/* Whether what a rotation drops is stored for good: it was decided before the last rotation. Frames of that very
   millisecond may have come before it. */
static bool is_archived(const struct meta *meta) {
    return !meta->backlog || (int64_t)meta->archived_ms > meta->rotated_ms;
}

enum call_result body_rotate(struct call *call) {
    struct meta *meta = &call->state->meta;
    int64_t min_age_ms, once_archived, rotated_ms = meta->rotated_ms, now_ms = call_now_ms(call);
    if (!call_number(call, 0, 0, MAX_MINOR, &min_age_ms)) return call_refuse(call, "ERR malformed age: milliseconds");
    if (!call_number(call, 1, 0, 1, &once_archived)) return call_refuse(call, "ERR malformed once-archived: 0 or 1");
    if (call->count > 2 && !call_number(call, 2, 0, MAX_MINOR, &rotated_ms))
        return call_refuse(call, "ERR malformed rotated: milliseconds");
    /* Whoever decided on it before another rotation did not want to forget two generations. */
    bool is_late = rotated_ms != meta->rotated_ms;
    if (!call->replaying && (is_late || now_ms - meta->rotated_ms < min_age_ms || (once_archived && !is_archived(meta)))) {
        RM_ReplyWithLongLong(call->ctx, TOO_EARLY);
        return CALL_IDLE;
    }
    uint32_t carried;
    if (!generations_rotate(call->state, &carried)) return call_refuse(call, "OOM no memory for a generation");
    meta->rotated_ms = now_ms;
    if (!call->replaying) RM_ReplyWithLongLong(call->ctx, carried);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ expire */

/* Takes holds that are due out of the heap, longest overdue first; pinning them does it. Replaying, so many as were
   noted. What their frame takes is added up. */
static uint32_t take_due(struct call *call, uint32_t *numbers, uint32_t limit, size_t *details) {
    static const unsigned char nobody[ATTEMPT_BYTES];
    uint32_t count = 0, number;
    *details = 0;
    while (count < limit && (number = hold_first_due(call->state)) != NO_RECORD) {
        const struct hold *hold = hold_at(call->state, number);
        if (!call->replaying &&
            (hold->expires_ms > call_now_ms(call) || rows_memory(count, *details) > EXPIRED_BYTES))
            break;
        *details += hold->details_length;
        hold_pin(call->state, number, nobody);
        numbers[count++] = number;
    }
    return count;
}

static void end_hold(struct state *state, uint32_t number, struct rows *rows) {
    const struct hold *hold = hold_at(state, number);
    struct account *account = account_at(state, hold->account);
    account->available += hold->amount;
    account->held -= hold->amount;
    account->version++;
    rows_add(rows, account, KIND_EXPIRY, -hold->amount, hold->id, hold->fingerprint, hold->details,
             hold->details_length);
    hold_remove(state, number);
}

enum call_result body_expire(struct call *call) {
    struct state *state = call->state;
    int64_t limit;
    uint32_t wanted, count;
    size_t details = 0;
    if (!call_number(call, 0, 1, MAX_BATCH, &limit)) return call_refuse(call, "ERR malformed limit: 1 to %d", MAX_BATCH);
    wanted = (uint32_t)limit;
    if (call->replaying && (!call_recall(call, &wanted, sizeof wanted) || wanted > MAX_BATCH))
        return call_refuse(call, "ERR malformed decisions");
    if (!call_reserve_notes(call, sizeof count) || !arena_begin(call, wanted * sizeof(uint32_t) + ARENA_SLACK))
        return call_refuse(call, "OOM no memory to end holds");
    uint32_t *numbers = arena_take(call, wanted * sizeof *numbers);
    count = take_due(call, numbers, wanted, &details);
    size_t size = rows_memory(count, details);
    unsigned char *memory = RM_TryAlloc(size + 1u);
    if (!memory || (call->replaying && count != wanted)) {
        RM_Free(memory);
        while (count) hold_unpin(state, numbers[--count]);
        return call_refuse(call, memory ? "ERR fewer holds than were ended" : "OOM no memory to end holds");
    }
    struct rows rows;
    rows_begin(&rows, memory, size);
    for (uint32_t i = 0; i < count; i++) end_hold(state, numbers[i], &rows);
    rows_append(&rows, call, FRAME_EXPIRE);
    RM_Free(memory);
    if (call->replaying) return CALL_DONE;
    call_note(call, &count, sizeof count);
    RM_ReplyWithLongLong(call->ctx, count);
    return count ? CALL_DONE : CALL_IDLE;
}

/* ------------------------------------------------------------------ archived */

/* Whether the ledger had a frame with this id, or a later one. */
static bool was_given(const struct meta *meta, const RedisModuleStreamID *id) {
    if (id->ms != meta->frame_ms) return id->ms < meta->frame_ms;
    return id->sequence <= meta->frame_sequence;
}

/* Everything up to and with the stream id is stored. Again, or late, it does nothing. */
enum call_result body_archived(struct call *call) {
    struct meta *meta = &call->state->meta;
    RedisModuleStreamID id;
    int64_t number, entries;
    size_t length;
    const char *text = (const char *)call_bytes(call, 0, &length);
    if (!stream_id_read(text, length, &id) || (!call->replaying && !was_given(meta, &id)))
        return call_refuse(call, "ERR malformed stream id: that of a frame of this ledger");
    const unsigned char *hash = call_bytes(call, 2, &length);
    if (!call_number(call, 1, 1, MAX_MINOR, &number)) return call_refuse(call, "ERR malformed number of a batch");
    if (length > sizeof meta->archived_head) return call_refuse(call, "ERR malformed hash: its length");
    if (!call_number(call, 3, 0, MAX_MINOR, &entries)) return call_refuse(call, "ERR malformed number of entries");
    bool is_next = (uint64_t)number > meta->archived_number;
    if (is_next) {
        RedisModuleStreamID first_kept = {.ms = id.ms, .sequence = id.sequence + 1u};
        if (RM_KeyType(call->ledger) == REDIS_KEY_STREAM) RM_StreamTrimByID(call->ledger, 0, &first_kept);
        meta->archived_number = (uint64_t)number;
        meta->archived_ms = id.ms;
        meta->archived_sequence = id.sequence;
        memcpy(meta->archived_head, hash, length);
        meta->archived_head_length = (uint8_t)length;
        meta->backlog -= entries;
        /* More entries than there were: somebody counts wrongly. */
        if (meta->backlog < 0) {
            meta->backlog = 0;
            meta->alarms++;
        }
    }
    if (!call->replaying) RM_ReplyWithSimpleString(call->ctx, "OK");
    return is_next ? CALL_DONE : CALL_IDLE;
}

/* ------------------------------------------------------------------ marks */

enum call_result body_mark(struct call *call) {
    const struct meta *meta = &call->state->meta;
    char frame[48];
    if (call->replaying) return CALL_DONE;
    int length = snprintf(frame, sizeof frame, "%" PRIu64 "-%" PRIu64, meta->frame_ms, meta->frame_sequence);
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithLongLong(call->ctx, call_now_ms(call));
    RM_ReplyWithStringBuffer(call->ctx, frame, (size_t)length);
    return CALL_DONE;
}

/* A record, and the payer and the payee of a purchase. */
#define OUTCOME_ROOM (sizeof(struct outcome_record) + 2u + 2u * MAX_ACCOUNT_ID_BYTES)
#define TICK_US 16u

static size_t put_outcome(const struct state *state, const unsigned char *id, uint16_t slot, unsigned char *to) {
    struct outcome_record record = {0};
    uint64_t hash = scoped_hash(state, id, slot);
    const struct outcome *outcome = outcome_find(state, id, slot, hash);
    const struct purchase *purchase = NULL;
    if (outcome) {
        uint64_t decided_ms = tick_number(outcome->tick) * TICK_US / 1000u;
        char currency[3];
        currency_text(outcome->currency, currency);
        record.code = outcome_code(outcome);
        record.leg = outcome->leg;
        record.amount = outcome->amount;
        memcpy(record.decided_ms, &decided_ms, sizeof record.decided_ms);
        memcpy(record.currency, currency, sizeof record.currency);
        memcpy(record.fingerprint, &outcome->fingerprint, sizeof record.fingerprint);
        if (outcome->code & OUTCOME_PURCHASE) purchase = purchase_find(state, id, slot, hash);
    }
    memcpy(to, &record, sizeof record);
    size_t used = sizeof record;
    to[used++] = purchase ? purchase->payer_length : 0;
    if (purchase) memcpy(to + used, purchase->names, purchase->payer_length);
    used += purchase ? purchase->payer_length : 0u;
    to[used++] = purchase ? purchase->payee_length : 0;
    if (purchase) memcpy(to + used, purchase->names + purchase->payer_length, purchase->payee_length);
    return used + (purchase ? purchase->payee_length : 0u);
}

enum call_result body_outcomes(struct call *call) {
    size_t size;
    const unsigned char *decisions = call_bytes(call, 0, &size);
    size_t count = size / DECISION_BYTES;
    if (!count || size % DECISION_BYTES || count > MAX_BATCH)
        return call_refuse(call, "ERR malformed decisions: their length");
    if (call->replaying) return CALL_DONE;
    if (!arena_begin(call, count * OUTCOME_ROOM + ARENA_SLACK))
        return call_refuse(call, "OOM no memory for %zu outcomes", count);
    unsigned char *answer = arena_take(call, count * OUTCOME_ROOM);
    size_t used = 0;
    for (; count; count--, decisions += DECISION_BYTES) {
        uint16_t slot;
        memcpy(&slot, decisions + ID_BYTES, sizeof slot);
        used += put_outcome(call->state, decisions, slot, answer + used);
    }
    RM_ReplyWithStringBuffer(call->ctx, (const char *)answer, used);
    return CALL_DONE;
}
