/* `decide`: the commit point, on the deciding shard of some attempts.

   Whatever participants said is final here: each transaction's outcome is written with what the shard's own legs did,
   the commit and the ledger's frame, in one command. R1: an outcome that is there is never written again. R3: COMMITTED
   is answered only to the attempt that committed, while its commit is kept. */
#include <assert.h>

#include "deciding.h"
#include "frame.h"

/* Before the attempts: whether balances are wanted, settlements. Of each attempt: id, participants, verdicts, legs,
   bundle. */
#define ARGUMENTS_BEFORE 2
#define ARGUMENTS_EACH 5

/* What is noted of an attempt: whether it was only answered, or its transactions were decided. */
enum fate { FATE_ANSWERED = 0, FATE_DECIDED = 1 };

/* A byte a transaction, one for all, or none: zeros. */
struct column {
    const unsigned char *bytes;
    size_t size;
};

/* An attempt as it is asked about, and what is answered of it. */
struct asked {
    const unsigned char *id;
    struct column verdicts, legs;
    struct work work;
    struct commit commit; /* its memory, until it is kept */
    struct others others;
    uint32_t first; /* the number of its first transaction in the call */
    bool is_busy;   /* whether a transaction so far is BUSY */
    uint8_t fate;
    uint8_t whole; /* a code of the whole attempt; 0 for a code a transaction, in the columns */
    const uint8_t *codes, *refused;
    uint32_t code_count;
};

struct decide {
    struct deciding deciding;
    struct frame frame;
    struct asked *attempts;
    uint32_t count;
    bool with_balances;
    const unsigned char *settled;
    size_t settled_size;
};

static uint8_t column_at(struct column column, uint32_t row) {
    return column.size ? column.bytes[column.size == 1u ? 0 : row] : 0;
}

/* ------------------------------------------------------------------ read, check */

static bool is_refusal(uint8_t code) { return code < 32u && PARTICIPANT_REFUSALS >> code & 1u; }

static const char *check_verdicts(const struct asked *asked, bool replaying) {
    const struct bundle *bundle = &asked->work.bundle;
    if (asked->verdicts.size > 1u && asked->verdicts.size != bundle->rows)
        return "verdicts: not as many as transactions";
    if (asked->legs.size > 1u && asked->legs.size != bundle->rows) return "legs: not as many as transactions";
    for (uint32_t row = 0; row < bundle->rows; row++) {
        uint8_t verdict = column_at(asked->verdicts, row);
        if (!replaying && verdict && verdict != CODE_SKIPPED && !is_refusal(verdict))
            return "verdicts: one is no refusal of a participant";
        if (column_at(asked->legs, row) >= bundle_legs(bundle, row)) return "legs: a transaction has not so many";
    }
    return NULL;
}

/* A transaction without a participant would be a commit that nobody has to finish, and nobody would settle. */
static const char *check_owners(const struct work *work, uint32_t participants) {
    const struct bundle *bundle = &work->bundle;
    if (bundle->plain) return NULL;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        uint32_t own = work->first_own[row + 1u] - work->first_own[row];
        if (!own) return "bundle: a transaction without a leg of the deciding shard";
        if (own == bundle->leg_counts[row]) return "bundle: a transaction without a participant";
    }
    for (uint32_t leg = 0; leg < bundle->leg_count; leg++)
        if (bundle->owners[leg] > participants) return "bundle: an owner that is no participant";
    return NULL;
}

static const char *read_attempt(struct call *call, struct decide *decide, uint32_t number, bool *memory) {
    struct asked *asked = &decide->attempts[number];
    int at = ARGUMENTS_BEFORE + ARGUMENTS_EACH * (int)number;
    size_t size;
    asked->id = call_bytes(call, at, &size);
    if (size != ATTEMPT_BYTES) return "attempt: an id of another length";
    if (!call->replaying && attempt_start_ms(asked->id) > call_now_ms(call) + MAX_ATTEMPT_AHEAD_MS)
        return "attempt: it starts in the future";
    const unsigned char *participants = call_bytes(call, at + 1, &size);
    int participant_count = participants_count(participants, size);
    if (participant_count < 1 || participant_count >= ALL_OWNERS) return "participants: too many, or none";
    asked->verdicts.bytes = call_bytes(call, at + 2, &asked->verdicts.size);
    asked->legs.bytes = call_bytes(call, at + 3, &asked->legs.size);
    const char *wrong = work_read(call, &asked->work, call->arguments[at + 4], 0);
    if (wrong) return wrong;
    wrong = check_verdicts(asked, call->replaying);
    if (!wrong) wrong = check_owners(&asked->work, (uint32_t)participant_count);
    if (wrong) return wrong;
    work_take_codes(call, &asked->work);
    work_take_balances(call, &asked->work);
    others_begin(call, &asked->others, asked->work.bundle.rows);
    asked->first = busy_add(&decide->deciding.busy, &asked->work.bundle, asked->id);
    memcpy(asked->commit.id, asked->id, ATTEMPT_BYTES);
    asked->commit.bundle = asked->work.argument;
    asked->commit.since_ms = call_now_ms(call);
    *memory = *memory && commit_room(&asked->commit, asked->work.bundle.rows, participants, size);
    return NULL;
}

static bool are_same(RedisModuleString *one, RedisModuleString *other) {
    size_t size, other_size;
    const char *bytes = RM_StringPtrLen(one, &size), *other_bytes = RM_StringPtrLen(other, &other_size);
    return size == other_size && !memcmp(bytes, other_bytes, size);
}

/* An attempt has one bundle: else the codes of one would be answered, and finished, as those of another. */
static const char *check_bundles(const struct call *call, const struct decide *decide, const uint64_t *hashes) {
    static const char *const wrong = "attempt: it has another bundle already";
    for (uint32_t i = 0; i < decide->count; i++) {
        const struct asked *asked = &decide->attempts[i];
        uint32_t kept = commit_find(call->state, asked->id);
        if (kept != NO_RECORD && !are_same(commit_at(call->state, kept)->bundle, asked->work.argument)) return wrong;
        for (uint32_t j = 0; j < i; j++) {
            const struct asked *other = &decide->attempts[j];
            if (hashes[j] == hashes[i] && !memcmp(other->id, asked->id, ATTEMPT_BYTES) &&
                !are_same(other->work.argument, asked->work.argument))
                return wrong;
        }
    }
    return NULL;
}

/* Memory for all that is to come; false without. `hashes` are those of the attempts' ids. */
static bool find_memory(struct call *call, struct decide *decide, const uint64_t *hashes) {
    struct state *state = call->state;
    struct deciding *deciding = &decide->deciding;
    size_t notes = sizeof deciding->raised_ms;
    for (uint32_t i = 0; i < decide->count; i++) {
        struct work *work = &decide->attempts[i].work;
        if (!work_find_accounts(call, work, &deciding->begun_accounts)) return false;
        work_need_outcomes(call, work, &deciding->needs);
        if (!work_need_conditions(call, work, &deciding->needs, true)) return false;
        notes += 1u + 3u * (work->bundle.rows + 1u);
    }
    uint64_t *ticks = arena_take(call, decide->count * sizeof *ticks), tick = deciding_next_tick(deciding);
    for (uint32_t i = 0; i < decide->count; i++) ticks[i] = tick_hash(tick + i);
    return needs_meet(state, &deciding->needs) && table_reserve(&state->commits, hashes, decide->count) &&
           table_reserve(&state->commit_ticks, ticks, decide->count) &&
           table_reserve(&current_generation(state)->ended, hashes, decide->count) && call_reserve_notes(call, notes);
}

static void end(struct decide *decide) {
    deciding_end(&decide->deciding);
    for (uint32_t i = 0; i < decide->count; i++) {
        work_end(&decide->attempts[i].work);
        commit_room_free(&decide->attempts[i].commit);
    }
}

static enum call_result read_decide(struct call *call, struct decide *decide) {
    int64_t with_balances;
    if (!call_number(call, 0, 0, 1, &with_balances)) return call_refuse(call, "ERR malformed flag: neither 0 nor 1");
    decide->with_balances = with_balances;
    decide->settled = call_bytes(call, 1, &decide->settled_size);
    if (decide->settled_size % SETTLEMENT_BYTES) return call_refuse(call, "ERR malformed settlements: another length");
    decide->count = (uint32_t)(call->count - ARGUMENTS_BEFORE) / ARGUMENTS_EACH;
    if (decide->count > MAX_ATTEMPTS) return call_refuse(call, "ERR malformed attempts: too many");
    size_t size = decide->count * (sizeof *decide->attempts + 2u * sizeof(uint64_t)) + 3u * ARENA_SLACK;
    uint32_t rows = 0;
    const char *wrong = work_measure(call, ARGUMENTS_BEFORE + 4, ARGUMENTS_EACH, &rows, &size);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    size += deciding_memory(rows) + others_memory(rows) + frame_memory(decide->count);
    size += decide->count * others_memory(0);
    if (!arena_begin(call, size)) return call_refuse(call, OUT_OF_MEMORY);
    deciding_begin(call, &decide->deciding, rows);
    frame_begin(call, &decide->frame, FRAME_DECIDE, decide->count);
    decide->attempts = arena_take(call, decide->count * sizeof *decide->attempts);
    memset(decide->attempts, 0, decide->count * sizeof *decide->attempts);
    uint64_t *hashes = arena_take(call, decide->count * sizeof *hashes);
    bool memory = true;
    for (uint32_t i = 0; i < decide->count && !wrong; i++) {
        wrong = read_attempt(call, decide, i, &memory);
        if (!wrong) hashes[i] = attempt_hash(call->state, decide->attempts[i].id);
    }
    if (!wrong && !call->replaying) wrong = check_bundles(call, decide, hashes);
    if (!wrong && memory && find_memory(call, decide, hashes)) return CALL_DONE;
    end(decide);
    return wrong ? call_refuse(call, "ERR malformed %s", wrong) : call_refuse(call, OUT_OF_MEMORY);
}

/* ------------------------------------------------------------------ decide, apply */

/* R9: whether an earlier copy of the transaction is BUSY. Its legs are prepared, so a participant may have refused this
   one only for their sake. */
static bool copy_is_busy(const struct asked *asked, uint32_t row) {
    const struct work *work = &asked->work;
    const unsigned char *id = bundle_id(&work->bundle, row);
    for (uint32_t i = 0; asked->is_busy && i < row; i++)
        if (work->codes[i] == CODE_BUSY && work->hashes[i] == work->hashes[row] &&
            !memcmp(bundle_id(&work->bundle, i), id, ID_BYTES) &&
            bundle_slot(&work->bundle, i) == bundle_slot(&work->bundle, row))
            return true;
    return false;
}

/* What is answered; `decided` is set when that is to be recorded. */
static void decide_row(struct decide *decide, struct asked *asked, uint32_t row, struct decision *decision) {
    struct deciding *deciding = &decide->deciding;
    struct work *work = &asked->work;
    if (deciding_recall(deciding, work, row, decision)) return;
    if (deciding_expires(deciding, work, row)) {
        decision->code = CODE_TRANSACTION_ID_EXPIRED;
        return;
    }
    decision->code = column_at(asked->verdicts, row);
    decision->leg = column_at(asked->legs, row);
    if (decision->code && copy_is_busy(asked, row)) {
        decision->code = CODE_SKIPPED;
        decision->leg = 0;
        return;
    }
    if (!decision->code) deciding_judge(deciding, work, row, asked->first + row, decision);
    if (decision->code == CODE_BUSY)
        asked->is_busy = true;
    else
        work->decided[row] = decision->code;
}

static bool is_skipped(const struct asked *asked, uint32_t row) {
    return column_at(asked->verdicts, row) == CODE_SKIPPED;
}

static void answer_row(struct asked *asked, uint32_t row, const struct decision *decision) {
    asked->work.codes[row] = decision->code;
    asked->work.refused[row] = decision->leg;
    others_add(&asked->others, decision->other, decision->other_is_commit);
}

static void carry_out_row(struct call *call, struct decide *decide, struct asked *asked, uint32_t row, uint64_t tick) {
    struct work *work = &asked->work;
    struct decision decision = {.code = work->decided[row], .leg = work->refused[row], .other = NO_RECORD};
    if (call->replaying && !decision.code) return;
    if (!call->replaying && is_skipped(asked, row)) {
        work->codes[row] = CODE_SKIPPED;
        return;
    }
    decision.fingerprint = bundle_fingerprint(&work->bundle, row, decide->deciding.scratch);
    if (!call->replaying) {
        decide_row(decide, asked, row, &decision);
        answer_row(asked, row, &decision);
    }
    if (!work->decided[row]) return;
    bool commits = decision.code == CODE_COMMITTED;
    deciding_record(&decide->deciding, work, row, &decision, commits ? tick : 0);
    if (commits) work_apply(call, work, row, decision.fingerprint, NULL);
}

/* Participants without a leg in what was committed have nothing to finish. */
static void count_unfinished(const struct asked *asked, struct commit *commit) {
    const struct bundle *bundle = &asked->work.bundle;
    bool owns[ALL_OWNERS] = {false};
    owns[1] = bundle->plain;
    for (uint32_t row = 0; !bundle->plain && row < bundle->rows; row++)
        for (uint32_t leg = bundle->first_leg[row]; leg < bundle->first_leg[row + 1u]; leg++)
            if (asked->work.decided[row] == CODE_COMMITTED) owns[bundle->owners[leg]] = true;
    commit->unfinished = 0;
    for (uint32_t i = 0; i < commit->participant_count; i++) {
        commit->participants[i].finished = !owns[i + 1u];
        commit->unfinished = (uint8_t)(commit->unfinished + owns[i + 1u]);
    }
}

/* The commit is there from the beginning, for the attempt's own transactions to find: of one that comes twice, the second
   is answered ELSEWHERE. It goes when nothing was committed. */
static void carry_out(struct call *call, struct decide *decide, struct asked *asked) {
    struct state *state = call->state;
    struct work *work = &asked->work;
    uint32_t rows = work->bundle.rows;
    asked->commit.tick = deciding_next_tick(&decide->deciding);
    uint32_t number = commit_keep(state, &asked->commit);
    asked->commit.participants = NULL;
    struct commit *commit = commit_at(state, number);
    for (uint32_t row = 0; row < rows; row++) {
        if (row % BLOCK_ROWS == 0) work_fetch(call, work, row);
        carry_out_row(call, decide, asked, row, commit->tick);
    }
    ended_add(state, current_generation(state), asked->id, ENDED_DECIDED);
    if (!work->applied_legs) {
        commit_drop(state, number);
        return;
    }
    state->meta.last_tick = commit->tick;
    memcpy(commit->codes, work->codes, rows);
    memcpy(commit->legs, work->refused, rows);
    count_unfinished(asked, commit);
    frame_add(&decide->frame, work);
}

/* An attempt that was decided and is settled, or that ended here as a participant's: each transaction as it is
   remembered. */
static void recall_rows(struct decide *decide, struct asked *asked) {
    struct work *work = &asked->work;
    for (uint32_t row = 0; row < work->bundle.rows; row++) {
        struct decision decision = {.code = CODE_ABANDONED, .other = NO_RECORD};
        decision.fingerprint = bundle_fingerprint(&work->bundle, row, decide->deciding.scratch);
        deciding_recall(&decide->deciding, work, row, &decision);
        answer_row(asked, row, &decision);
    }
}

/* Whether the attempt's transactions are to be decided; else what is answered is set. */
static bool is_to_decide(const struct call *call, struct decide *decide, struct asked *asked) {
    const struct state *state = call->state;
    asked->codes = asked->work.codes;
    asked->refused = asked->work.refused;
    asked->code_count = asked->work.bundle.rows;
    uint32_t kept = commit_find(state, asked->id);
    uint8_t ended = ended_find(state, asked->id);
    if (kept != NO_RECORD) {
        asked->codes = commit_at(state, kept)->codes;
        asked->refused = commit_at(state, kept)->legs;
        asked->code_count = commit_at(state, kept)->rows;
    } else if (attempt_is_expired(state, asked->id)) {
        asked->whole = CODE_ATTEMPT_EXPIRED;
    } else if (ended == ENDED_ABANDONED) {
        asked->whole = CODE_ABANDONED;
    } else if (ended) {
        /* Also one that ended here as a participant's: that took the place of what `abandon` had marked (R7). */
        recall_rows(decide, asked);
    } else {
        return true;
    }
    return false;
}

static bool decide_attempt(struct call *call, struct decide *decide, struct asked *asked) {
    struct work *work = &asked->work;
    uint32_t rows = work->bundle.rows;
    if (call->replaying) {
        if (!call_recall(call, &asked->fate, 1)) return false;
        if (asked->fate == FATE_ANSWERED) return true;
        if (!call_recall_codes(call, work->decided, rows) || !call_recall_codes(call, work->codes, rows) ||
            !call_recall_codes(call, work->refused, rows))
            return false;
        carry_out(call, decide, asked);
        return true;
    }
    asked->fate = is_to_decide(call, decide, asked) ? FATE_DECIDED : FATE_ANSWERED;
    call_note(call, &asked->fate, 1);
    if (asked->fate == FATE_ANSWERED) return true;
    carry_out(call, decide, asked);
    call_note_codes(call, work->decided, rows);
    call_note_codes(call, work->codes, rows);
    call_note_codes(call, work->refused, rows);
    return true;
}

/* ------------------------------------------------------------------ answer */

static void answer(const struct call *call, const struct decide *decide) {
    RM_ReplyWithArray(call->ctx, 4);
    RM_ReplyWithArray(call->ctx, decide->count);
    for (uint32_t i = 0; i < decide->count; i++) {
        const struct asked *asked = &decide->attempts[i];
        reply_codes(call, asked->whole ? &asked->whole : asked->codes, asked->whole ? 1u : asked->code_count);
    }
    RM_ReplyWithArray(call->ctx, decide->count);
    for (uint32_t i = 0; i < decide->count; i++) {
        const struct asked *asked = &decide->attempts[i];
        reply_legs(call, asked->refused, asked->whole ? 0 : asked->code_count);
    }
    RM_ReplyWithArray(call->ctx, decide->count);
    for (uint32_t i = 0; i < decide->count; i++) {
        const struct work *work = &decide->attempts[i].work;
        reply_balances(call, work->available, work->leg_count, decide->with_balances);
    }
    RM_ReplyWithArray(call->ctx, decide->count);
    for (uint32_t i = 0; i < decide->count; i++) reply_others(call, &decide->attempts[i].others);
}

enum call_result body_decide(struct call *call) {
    struct decide decide = {0};
    if (read_decide(call, &decide) == CALL_REFUSED) return CALL_REFUSED;
    for (size_t at = 0; at < decide.settled_size; at += SETTLEMENT_BYTES)
        commit_settle(call->state, decide.settled + at, decide.settled[at + ATTEMPT_BYTES]);
    for (uint32_t i = 0; i < decide.count; i++)
        if (!decide_attempt(call, &decide, &decide.attempts[i]))
            return call_refuse(call, "ERR the log has no decisions of this attempt");
    if (!deciding_raise_horizon(&decide.deciding))
        return call_refuse(call, "ERR the log has no horizon of this decide");
    frame_end(&decide.frame);
    if (!call->replaying) answer(call, &decide);
    end(&decide);
    return CALL_DONE;
}
