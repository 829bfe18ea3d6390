/* `settle` and `abandon`: what the deciding shard is told and asked when attempts end, mostly by recovery.

   R6: a commit is dropped when all its participants have finished. R7: an attempt that is abandoned will never commit
   anything; recovery drops legs on that word only. */
#include "attempts.h"
#include "deciding.h"

/* ------------------------------------------------------------------ settle */

enum call_result body_settle(struct call *call) {
    size_t size;
    const unsigned char *settled = call_bytes(call, 0, &size);
    if (size % SETTLEMENT_BYTES) return call_refuse(call, "ERR malformed settlements: another length");
    for (size_t at = 0; at < size; at += SETTLEMENT_BYTES)
        commit_settle(call->state, settled + at, settled[at + ATTEMPT_BYTES]);
    if (!call->replaying) RM_ReplyWithSimpleString(call->ctx, "OK");
    return CALL_DONE;
}

/* ------------------------------------------------------------------ abandon */

static const char *check_abandon(const struct call *call) {
    if (call->count > MAX_ATTEMPTS) return "attempts: too many";
    for (int i = 0; i < call->count; i++) {
        size_t size;
        const unsigned char *id = call_bytes(call, i, &size);
        if (size != ATTEMPT_BYTES) return "attempt: an id of another length";
        if (!call->replaying && attempt_start_ms(id) > call_now_ms(call) + MAX_ATTEMPT_AHEAD_MS)
            return "attempt: it starts in the future";
    }
    return NULL;
}

static bool is_to_mark(const struct state *state, const unsigned char *id) {
    return commit_find(state, id) == NO_RECORD && !attempt_is_expired(state, id) && !ended_find(state, id);
}

static void reply_unfinished(const struct call *call, const struct commit *commit) {
    unsigned char *packed = RM_Alloc(commit->unfinished * (2u + UINT8_MAX) + 1u), *at = packed;
    for (uint32_t i = 0; i < commit->participant_count; i++) {
        const struct participant *participant = &commit->participants[i];
        if (participant->finished) continue;
        *at++ = (unsigned char)(i + 1u);
        *at++ = participant->name_length;
        memcpy(at, participant->name, participant->name_length);
        at += participant->name_length;
    }
    RM_ReplyWithStringBuffer(call->ctx, (const char *)packed, (size_t)(at - packed));
    RM_Free(packed);
}

static void answer_abandon(const struct call *call) {
    static const uint8_t abandoned = CODE_ABANDONED;
    size_t size;
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithArray(call->ctx, call->count);
    for (int i = 0; i < call->count; i++) {
        uint32_t number = commit_find(call->state, call_bytes(call, i, &size));
        if (number == NO_RECORD)
            reply_codes(call, &abandoned, 1);
        else
            reply_codes(call, commit_at(call->state, number)->codes, commit_at(call->state, number)->rows);
    }
    RM_ReplyWithArray(call->ctx, call->count);
    for (int i = 0; i < call->count; i++) {
        uint32_t number = commit_find(call->state, call_bytes(call, i, &size));
        if (number == NO_RECORD)
            RM_ReplyWithStringBuffer(call->ctx, "", 0);
        else
            reply_unfinished(call, commit_at(call->state, number));
    }
}

enum call_result body_abandon(struct call *call) {
    struct state *state = call->state;
    const char *wrong = check_abandon(call);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    uint32_t count = (uint32_t)call->count;
    uint64_t hashes[MAX_ATTEMPTS];
    uint8_t marks[MAX_ATTEMPTS];
    size_t size;
    for (uint32_t i = 0; i < count; i++) hashes[i] = attempt_hash(state, call_bytes(call, (int)i, &size));
    if (!table_reserve(&current_generation(state)->ended, hashes, count) || !call_reserve_notes(call, count + 1u))
        return call_refuse(call, OUT_OF_MEMORY);
    if (call->replaying && !call_recall_codes(call, marks, count))
        return call_refuse(call, "ERR the log has no marks of this abandon");
    for (uint32_t i = 0; i < count; i++) {
        const unsigned char *id = call_bytes(call, (int)i, &size);
        if (!call->replaying) marks[i] = is_to_mark(state, id);
        if (marks[i]) ended_add(state, current_generation(state), id, ENDED_ABANDONED);
    }
    if (call->replaying) return CALL_DONE;
    call_note_codes(call, marks, count);
    answer_abandon(call);
    return CALL_DONE;
}
