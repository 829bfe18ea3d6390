/* `prepare`: a participant checks its legs of some attempts, and keeps them.

   What is prepared can be finished whatever happens meanwhile, and is dropped only on the deciding shard's word (R2).
   Legs are checked once: of what is kept the codes are answered again, and of what has ended nothing is kept (R4). */
#include "deciding.h"

/* Of each attempt: id, deciding shard, owner, bundle. */
#define ARGUMENTS_EACH 4

/* What is noted of an attempt: whether it was only answered, or its transactions were checked. */
enum fate { FATE_ANSWERED = 0, FATE_CHECKED = 1 };

/* An attempt as it is asked about, and what is answered of it. */
struct asked {
    struct attempt attempt; /* as it will be kept; its memory, until then */
    struct work work;
    struct others others;
    uint32_t first; /* the number of its first transaction in the call */
    uint8_t fate;
    uint8_t whole; /* a code of the whole attempt; 0 for a code a transaction, in the columns */
    const uint8_t *codes, *refused;
    uint32_t code_count;
};

struct prepare {
    struct busy busy;
    struct needs needs;
    struct asked *attempts;
    uint32_t count, begun_accounts;
};

/* ------------------------------------------------------------------ read, check */

static const char *read_attempt(struct call *call, struct prepare *prepare, uint32_t number, bool *memory) {
    struct asked *asked = &prepare->attempts[number];
    struct attempt *attempt = &asked->attempt;
    int at = ARGUMENTS_EACH * (int)number;
    size_t size;
    int64_t owner;
    const unsigned char *id = call_bytes(call, at, &size);
    if (size != ATTEMPT_BYTES) return "attempt: an id of another length";
    if (!call->replaying && attempt_start_ms(id) > call_now_ms(call) + MAX_ATTEMPT_AHEAD_MS)
        return "attempt: it starts in the future";
    call_bytes(call, at + 1, &size);
    if (!size || size > UINT8_MAX) return "decider: a name that is too long, or empty";
    if (!call_number(call, at + 2, 1, ALL_OWNERS - 1, &owner)) return "owner: it is no participant's number";
    const char *wrong = work_read(call, &asked->work, call->arguments[at + 3], (uint8_t)owner);
    if (wrong) return wrong;
    work_take_codes(call, &asked->work);
    others_begin(call, &asked->others, asked->work.bundle.rows);
    memcpy(attempt->id, id, ATTEMPT_BYTES);
    attempt->owner = (uint8_t)owner;
    attempt->decider = call->arguments[at + 1];
    attempt->bundle = call->arguments[at + 3];
    attempt->since_ms = call_now_ms(call);
    asked->first = busy_add(&prepare->busy, &asked->work.bundle, attempt->id);
    *memory = *memory && attempt_room(attempt, asked->work.bundle.rows, asked->work.leg_count);
    return NULL;
}

/* Memory for all that is to come; false without. */
static bool find_memory(struct call *call, struct prepare *prepare) {
    struct state *state = call->state;
    uint64_t *hashes = arena_take(call, prepare->count * sizeof *hashes);
    size_t notes = 0;
    for (uint32_t i = 0; i < prepare->count; i++) {
        struct asked *asked = &prepare->attempts[i];
        if (!work_find_accounts(call, &asked->work, &prepare->begun_accounts)) return false;
        if (!work_need_conditions(call, &asked->work, &prepare->needs, false)) return false;
        hashes[i] = attempt_hash(state, asked->attempt.id);
        notes += 1u + 2u * (asked->work.bundle.rows + 1u);
    }
    return needs_meet(state, &prepare->needs) && table_reserve(&state->attempts, hashes, prepare->count) &&
           call_reserve_notes(call, notes);
}

static void end(struct call *call, struct prepare *prepare) {
    accounts_end_unused(call->state, prepare->begun_accounts);
    for (uint32_t i = 0; i < prepare->count; i++) attempt_room_free(&prepare->attempts[i].attempt);
}

static enum call_result read_prepare(struct call *call, struct prepare *prepare) {
    prepare->count = (uint32_t)call->count / ARGUMENTS_EACH;
    if (prepare->count > MAX_ATTEMPTS) return call_refuse(call, "ERR malformed attempts: too many");
    size_t size = prepare->count * (sizeof *prepare->attempts + sizeof(uint64_t)) + 2u * ARENA_SLACK;
    uint32_t rows = 0;
    const char *wrong = work_measure(call, 3, ARGUMENTS_EACH, &rows, &size);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    size += busy_memory(rows) + needs_memory(rows) + prepare->count * others_memory(0) + others_memory(rows);
    if (!arena_begin(call, size)) return call_refuse(call, OUT_OF_MEMORY);
    busy_begin(call, &prepare->busy, rows);
    needs_begin(call, &prepare->needs, rows);
    prepare->attempts = arena_take(call, prepare->count * sizeof *prepare->attempts);
    memset(prepare->attempts, 0, prepare->count * sizeof *prepare->attempts);
    bool memory = true;
    for (uint32_t i = 0; i < prepare->count && !wrong; i++) wrong = read_attempt(call, prepare, i, &memory);
    if (!wrong && memory && find_memory(call, prepare)) return CALL_DONE;
    end(call, prepare);
    return wrong ? call_refuse(call, "ERR malformed %s", wrong) : call_refuse(call, OUT_OF_MEMORY);
}

/* ------------------------------------------------------------------ decide, apply */

/* Whether what is kept is what is asked about: an attempt is of one owner here, and has one bundle. */
static bool is_kept(const struct attempt *kept, const struct asked *asked) {
    const struct bundle *bundle = &asked->work.bundle;
    size_t size;
    const char *bytes = RM_StringPtrLen(kept->bundle, &size);
    return kept->owner == asked->attempt.owner && size == bundle->size && !memcmp(bytes, bundle->bytes, size);
}

/* Whether the attempt's transactions are to be checked; else what is answered is set. Of anything else under the id of
   an attempt that is kept nothing will be kept, as if it had ended: its codes would be taken for those of other legs. */
static bool is_to_check(const struct call *call, struct asked *asked) {
    const struct state *state = call->state;
    asked->codes = asked->work.codes;
    asked->refused = asked->work.refused;
    asked->code_count = asked->work.bundle.rows;
    uint32_t kept = attempt_find(state, asked->attempt.id);
    if (attempt_is_expired(state, asked->attempt.id)) {
        asked->whole = CODE_ATTEMPT_EXPIRED;
    } else if (kept != NO_RECORD && is_kept(attempt_at(state, kept), asked)) {
        asked->codes = attempt_at(state, kept)->codes;
        asked->refused = attempt_at(state, kept)->legs;
        asked->code_count = attempt_at(state, kept)->rows;
    } else if (kept != NO_RECORD || ended_find(state, asked->attempt.id)) {
        asked->whole = CODE_ENDED;
    } else {
        return true;
    }
    return false;
}

static void check_row(const struct call *call, struct prepare *prepare, struct asked *asked, uint32_t row) {
    struct work *work = &asked->work;
    uint32_t other = NO_RECORD;
    struct judgement judgement =
        busy_judge(call, &prepare->busy, work, row, asked->first + row, true, &other);
    work->codes[row] = judgement.code ? judgement.code : CODE_PREPARED;
    work->refused[row] = judgement.leg;
    others_add(&asked->others, other, false);
}

static void keep(struct call *call, struct prepare *prepare, struct asked *asked) {
    struct work *work = &asked->work;
    struct attempt *attempt = &asked->attempt;
    memcpy(attempt->codes, work->codes, attempt->rows);
    memcpy(attempt->legs, work->refused, attempt->rows);
    memcpy(attempt->accounts, work->accounts, attempt->leg_count * sizeof *attempt->accounts);
    uint32_t number = attempt_keep(call->state, attempt);
    attempt->accounts = NULL;
    if (!call->replaying) busy_kept(&prepare->busy, number);
}

static void carry_out(struct call *call, struct prepare *prepare, struct asked *asked) {
    struct work *work = &asked->work;
    bool prepared = false;
    for (uint32_t row = 0; row < work->bundle.rows; row++) {
        if (row % BLOCK_ROWS == 0) work_fetch(call, work, row);
        if (!call->replaying && work_owns(work, row)) check_row(call, prepare, asked, row);
        if (work->codes[row] != CODE_PREPARED) continue;
        asked->attempt.reserving |= work_reserve(call, work, row, asked->attempt.id);
        prepared = true;
    }
    if (prepared) keep(call, prepare, asked);
}

static bool prepare_attempt(struct call *call, struct prepare *prepare, struct asked *asked) {
    struct work *work = &asked->work;
    uint32_t rows = work->bundle.rows;
    if (call->replaying) {
        if (!call_recall(call, &asked->fate, 1)) return false;
        if (asked->fate == FATE_ANSWERED) return true;
        if (!call_recall_codes(call, work->codes, rows) || !call_recall_codes(call, work->refused, rows)) return false;
        carry_out(call, prepare, asked);
        return true;
    }
    asked->fate = is_to_check(call, asked) ? FATE_CHECKED : FATE_ANSWERED;
    call_note(call, &asked->fate, 1);
    if (asked->fate == FATE_ANSWERED) return true;
    carry_out(call, prepare, asked);
    call_note_codes(call, work->codes, rows);
    call_note_codes(call, work->refused, rows);
    return true;
}

/* ------------------------------------------------------------------ answer */

static void answer(const struct call *call, const struct prepare *prepare) {
    RM_ReplyWithArray(call->ctx, 3);
    RM_ReplyWithArray(call->ctx, prepare->count);
    for (uint32_t i = 0; i < prepare->count; i++) {
        const struct asked *asked = &prepare->attempts[i];
        reply_codes(call, asked->whole ? &asked->whole : asked->codes, asked->whole ? 1u : asked->code_count);
    }
    RM_ReplyWithArray(call->ctx, prepare->count);
    for (uint32_t i = 0; i < prepare->count; i++) {
        const struct asked *asked = &prepare->attempts[i];
        reply_legs(call, asked->refused, asked->whole ? 0 : asked->code_count);
    }
    RM_ReplyWithArray(call->ctx, prepare->count);
    for (uint32_t i = 0; i < prepare->count; i++) reply_others(call, &prepare->attempts[i].others);
}

enum call_result body_prepare(struct call *call) {
    struct prepare prepare = {0};
    if (read_prepare(call, &prepare) == CALL_REFUSED) return CALL_REFUSED;
    for (uint32_t i = 0; i < prepare.count; i++)
        if (!prepare_attempt(call, &prepare, &prepare.attempts[i]))
            return call_refuse(call, "ERR the log has no codes of this attempt");
    if (!call->replaying) answer(call, &prepare);
    end(call, &prepare);
    return CALL_DONE;
}
