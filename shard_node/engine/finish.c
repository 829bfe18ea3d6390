/* `finish`: a participant carries out what committed of some attempts, and drops the rest.

   Nothing is refused here. R5: what committed, and is neither kept nor known to have been finished, is never acknowledged but
   counted and answered as MISSING_LEG; of an attempt that may be forgotten it is counted apart. */
#include "deciding.h"
#include "frame.h"

/* Before the attempts: whether balances are wanted. Of each attempt: id, codes. */
#define ARGUMENTS_BEFORE 1
#define ARGUMENTS_EACH 2

/* What is noted of an attempt: whether it was kept, so that it ends now. */
enum fate { FATE_NOT_KEPT = 0, FATE_ENDS = 1 };

/* An attempt as it is asked about, and what is answered of it. */
struct asked {
    const unsigned char *id, *given; /* given: codes, one for all or one a transaction */
    size_t given_size;
    bool was_kept; /* when the call began: of two ends of one attempt, the second finds nothing */
    struct work work;
    uint8_t fate;
    uint8_t *codes; /* what is answered */
    uint32_t code_count;
};

struct finish {
    struct needs needs;
    struct frame frame;
    struct asked *attempts;
    uint32_t count;
    unsigned char *scratch;
    bool with_balances;
};

static uint8_t given_at(const struct asked *asked, uint32_t row) {
    return asked->given[asked->given_size == 1u ? 0 : row];
}

/* ------------------------------------------------------------------ read, check */

/* NULL, or what is wrong with the arguments of an attempt. */
static const char *read_attempt(struct call *call, uint32_t number, struct asked *asked, uint32_t *kept) {
    int at = ARGUMENTS_BEFORE + ARGUMENTS_EACH * (int)number;
    size_t size;
    *asked = (struct asked){.id = call_bytes(call, at, &size)};
    if (size != ATTEMPT_BYTES) return "attempt: an id of another length";
    asked->given = call_bytes(call, at + 1, &asked->given_size);
    if (!asked->given_size || asked->given_size > MAX_BATCH) return "codes: too many, or none";
    *kept = attempt_find(call->state, asked->id);
    if (*kept == NO_RECORD || asked->given_size == 1u) return NULL;
    return asked->given_size == attempt_at(call->state, *kept)->rows ? NULL : "codes: not as many as transactions";
}

/* Adds up what attempts that are kept need of the arena. */
static const char *measure(struct call *call, uint32_t count, uint32_t *rows, size_t *size) {
    for (uint32_t i = 0; i < count; i++) {
        struct asked asked;
        uint32_t kept;
        const char *wrong = read_attempt(call, i, &asked, &kept);
        if (wrong) return wrong;
        *size += asked.given_size + ARENA_SLACK;
        if (kept == NO_RECORD) continue;
        const struct attempt *attempt = attempt_at(call->state, kept);
        struct bundle bundle;
        bundle_recall(&bundle, attempt->bundle);
        *rows += attempt->rows;
        if (*rows > MAX_BATCH) return "attempts: too many transactions in one call";
        *size += work_memory(attempt->rows, bundle.leg_count);
    }
    return NULL;
}

/* Memory for all that is to come; false without. */
static bool find_memory(struct call *call, struct finish *finish) {
    struct state *state = call->state;
    uint64_t *hashes = arena_take(call, finish->count * sizeof *hashes);
    size_t notes = 0;
    for (uint32_t i = 0; i < finish->count; i++) {
        struct asked *asked = &finish->attempts[i];
        hashes[i] = attempt_hash(state, asked->id);
        notes += 2u + asked->code_count + 1u;
        if (asked->was_kept && !work_need_conditions(call, &asked->work, &finish->needs, true)) return false;
    }
    return needs_meet(state, &finish->needs) &&
           table_reserve(&current_generation(state)->ended, hashes, finish->count) && call_reserve_notes(call, notes);
}

static void end(struct finish *finish) {
    for (uint32_t i = 0; i < finish->count; i++) work_end(&finish->attempts[i].work);
}

static enum call_result read_finish(struct call *call, struct finish *finish) {
    int64_t with_balances;
    if (!call_number(call, 0, 0, 1, &with_balances)) return call_refuse(call, "ERR malformed flag: neither 0 nor 1");
    finish->with_balances = with_balances;
    finish->count = (uint32_t)(call->count - ARGUMENTS_BEFORE) / ARGUMENTS_EACH;
    if (finish->count > MAX_ATTEMPTS) return call_refuse(call, "ERR malformed attempts: too many");
    uint32_t rows = 0;
    size_t size = finish->count * (sizeof *finish->attempts + sizeof(uint64_t)) + FINGERPRINT_SCRATCH;
    const char *wrong = measure(call, finish->count, &rows, &size);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    if (!arena_begin(call, size + needs_memory(rows) + frame_memory(finish->count) + 3u * ARENA_SLACK))
        return call_refuse(call, OUT_OF_MEMORY);
    needs_begin(call, &finish->needs, rows);
    frame_begin(call, &finish->frame, FRAME_FINISH, finish->count);
    finish->scratch = arena_take(call, FINGERPRINT_SCRATCH);
    finish->attempts = arena_take(call, finish->count * sizeof *finish->attempts);
    for (uint32_t i = 0; i < finish->count; i++) {
        struct asked *asked = &finish->attempts[i];
        uint32_t kept;
        read_attempt(call, i, asked, &kept);
        asked->was_kept = kept != NO_RECORD;
        asked->code_count = (uint32_t)asked->given_size;
        if (!asked->was_kept) continue;
        work_recall(call, &asked->work, attempt_at(call->state, kept));
        work_take_codes(call, &asked->work);
        work_take_balances(call, &asked->work);
        asked->code_count = asked->work.bundle.rows;
    }
    if (find_memory(call, finish)) return CALL_DONE;
    end(finish);
    return call_refuse(call, OUT_OF_MEMORY);
}

/* ------------------------------------------------------------------ apply */

static uint8_t answer_of(const struct work *work, uint32_t row, uint8_t prepared, uint8_t given) {
    if (given != CODE_COMMITTED) return CODE_DROPPED;
    return prepared == CODE_PREPARED || !work_owns(work, row) ? CODE_FINISHED : CODE_MISSING_LEG;
}

static void end_row(struct call *call, struct finish *finish, struct asked *asked, uint32_t row, uint8_t prepared) {
    struct work *work = &asked->work;
    uint8_t code = work->codes[row];
    call->state->meta.alarms += code == CODE_MISSING_LEG;
    if (prepared != CODE_PREPARED) return;
    if (code != CODE_FINISHED) {
        work_release(call, work, row, asked->id);
        return;
    }
    work->decided[row] = CODE_COMMITTED;
    work_apply(call, work, row, bundle_fingerprint(&work->bundle, row, finish->scratch), asked->id);
}

static void end_attempt(struct call *call, struct finish *finish, struct asked *asked, uint32_t number) {
    struct state *state = call->state;
    struct work *work = &asked->work;
    const uint8_t *prepared = attempt_at(state, number)->codes;
    for (uint32_t row = 0; row < work->bundle.rows; row++) {
        if (row % BLOCK_ROWS == 0) work_fetch(call, work, row);
        if (!call->replaying) work->codes[row] = answer_of(work, row, prepared[row], given_at(asked, row));
        end_row(call, finish, asked, row, prepared[row]);
    }
    frame_add(&finish->frame, work);
    attempt_drop(state, number);
    ended_add(state, current_generation(state), asked->id, ENDED_FINISHED);
}

/* What an attempt that is not kept is answered: it has ended before, or its legs are lost. */
static void answer_unknown(struct call *call, struct asked *asked) {
    const struct state *state = call->state;
    bool commits = memchr(asked->given, CODE_COMMITTED, asked->given_size);
    /* That it was decided or abandoned here says nothing of legs here. */
    if (commits && ended_find(state, asked->id) != ENDED_FINISHED) {
        asked->codes[0] = attempt_is_expired(state, asked->id) ? CODE_ATTEMPT_EXPIRED : CODE_MISSING_LEG;
        asked->code_count = 1;
        return;
    }
    asked->code_count = (uint32_t)asked->given_size;
    for (uint32_t i = 0; i < asked->code_count; i++)
        asked->codes[i] = asked->given[i] == CODE_COMMITTED ? CODE_FINISHED : CODE_DROPPED;
}

static bool finish_attempt(struct call *call, struct finish *finish, struct asked *asked) {
    struct meta *meta = &call->state->meta;
    uint32_t number = attempt_find(call->state, asked->id);
    asked->fate = number == NO_RECORD ? FATE_NOT_KEPT : FATE_ENDS;
    asked->codes = asked->fate == FATE_ENDS ? asked->work.codes : arena_take(call, asked->given_size);
    if (call->replaying) {
        uint8_t fate;
        if (!call_recall(call, &fate, 1) || fate != asked->fate) return false;
        if (!call_recall_codes(call, asked->codes, fate == FATE_ENDS ? asked->code_count : 1u)) return false;
    } else {
        call_note(call, &asked->fate, 1);
    }
    if (asked->fate == FATE_ENDS) {
        end_attempt(call, finish, asked, number);
        if (!call->replaying) call_note_codes(call, asked->codes, asked->code_count);
        return true;
    }
    if (!call->replaying) {
        answer_unknown(call, asked);
        call_note_codes(call, asked->codes, 1);
    }
    meta->alarms += asked->codes[0] == CODE_MISSING_LEG;
    meta->expired_finishes += asked->codes[0] == CODE_ATTEMPT_EXPIRED;
    return true;
}

/* ------------------------------------------------------------------ answer */

static void answer(const struct call *call, const struct finish *finish) {
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithArray(call->ctx, finish->count);
    for (uint32_t i = 0; i < finish->count; i++)
        reply_codes(call, finish->attempts[i].codes, finish->attempts[i].code_count);
    RM_ReplyWithArray(call->ctx, finish->count);
    for (uint32_t i = 0; i < finish->count; i++) {
        const struct asked *asked = &finish->attempts[i];
        bool wanted = finish->with_balances && asked->fate == FATE_ENDS;
        reply_balances(call, asked->work.available, asked->work.leg_count, wanted);
    }
}

enum call_result body_finish(struct call *call) {
    struct finish finish = {0};
    if (read_finish(call, &finish) == CALL_REFUSED) return CALL_REFUSED;
    for (uint32_t i = 0; i < finish.count; i++)
        if (!finish_attempt(call, &finish, &finish.attempts[i]))
            return call_refuse(call, "ERR the log has no end of this attempt");
    frame_end(&finish.frame);
    if (!call->replaying) answer(call, &finish);
    end(&finish);
    return CALL_DONE;
}
