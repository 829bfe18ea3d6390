/* `post`: transactions whose accounts are all on this shard, carried out at once, each all or none. */
#include "deciding.h"
#include "frame.h"

struct post {
    struct deciding deciding;
    struct work work;
    struct others others;
    struct frame frame;
    bool with_balances;
};

/* ------------------------------------------------------------------ read, check */

static enum call_result find_memory(struct call *call, struct post *post) {
    struct deciding *deciding = &post->deciding;
    struct work *work = &post->work;
    bool found = work_find_accounts(call, work, &deciding->begun_accounts);
    if (found) {
        work_need_outcomes(call, work, &deciding->needs);
        found = work_need_conditions(call, work, &deciding->needs, true) && needs_meet(call->state, &deciding->needs) &&
                call_reserve_notes(call, 2u * (work->bundle.rows + 1u) + sizeof deciding->raised_ms);
    }
    if (found) return CALL_DONE;
    deciding_end(deciding);
    work_end(work);
    return call_refuse(call, OUT_OF_MEMORY);
}

static enum call_result read_post(struct call *call, struct post *post) {
    int64_t with_balances;
    if (!call_number(call, 0, 0, 1, &with_balances)) return call_refuse(call, "ERR malformed flag: neither 0 nor 1");
    post->with_balances = with_balances;
    uint32_t rows = 0;
    size_t size = 0;
    const char *wrong = work_measure(call, 1, 1, &rows, &size);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    if (!arena_begin(call, size + deciding_memory(rows) + others_memory(rows) + frame_memory(1u)))
        return call_refuse(call, OUT_OF_MEMORY);
    wrong = work_read(call, &post->work, call->arguments[1], ALL_OWNERS);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    deciding_begin(call, &post->deciding, rows);
    busy_add(&post->deciding.busy, &post->work.bundle, NULL);
    work_take_codes(call, &post->work);
    work_take_balances(call, &post->work);
    others_begin(call, &post->others, rows);
    frame_begin(call, &post->frame, FRAME_POST, 1u);
    return find_memory(call, post);
}

/* ------------------------------------------------------------------ decide, apply */

/* What is answered; `decided` is set when that is to be recorded. */
static void decide_row(struct post *post, uint32_t row, struct decision *decision) {
    struct work *work = &post->work;
    if (deciding_recall(&post->deciding, work, row, decision)) {
        if (decision->code == CODE_SETTLED) decision->code = CODE_COMMITTED;
        /* Committed across shards before its accounts came together, and still on its way. */
        if (decision->code == CODE_ELSEWHERE) decision->code = CODE_OUTCOME_UNKNOWN;
        return;
    }
    if (deciding_expires(&post->deciding, work, row)) {
        decision->code = CODE_TRANSACTION_ID_EXPIRED;
        return;
    }
    deciding_judge(&post->deciding, work, row, row, decision);
    if (decision->code == CODE_BUSY)
        others_add(&post->others, decision->other, false);
    else
        work->decided[row] = decision->code;
}

static void post_row(struct call *call, struct post *post, uint32_t row) {
    struct work *work = &post->work;
    struct decision decision = {.code = work->decided[row], .leg = work->refused[row], .other = NO_RECORD};
    if (call->replaying && !decision.code) return;
    decision.fingerprint = bundle_fingerprint(&work->bundle, row, post->deciding.scratch);
    if (!call->replaying) {
        decide_row(post, row, &decision);
        work->codes[row] = decision.code;
        work->refused[row] = decision.leg;
    }
    if (!work->decided[row]) return;
    deciding_record(&post->deciding, work, row, &decision, 0);
    if (decision.code == CODE_COMMITTED) work_apply(call, work, row, decision.fingerprint, NULL);
}

/* ------------------------------------------------------------------ answer */

static void answer(const struct call *call, const struct post *post) {
    const struct work *work = &post->work;
    RM_ReplyWithArray(call->ctx, 4);
    reply_codes(call, work->codes, work->bundle.rows);
    reply_legs(call, work->refused, work->bundle.rows);
    reply_balances(call, work->available, work->leg_count, post->with_balances);
    reply_others(call, &post->others);
}

enum call_result body_post(struct call *call) {
    struct post post = {0};
    if (read_post(call, &post) == CALL_REFUSED) return CALL_REFUSED;
    struct work *work = &post.work;
    uint32_t rows = work->bundle.rows;
    bool recalled = !call->replaying || (call_recall_codes(call, work->decided, rows) &&
                                         call_recall_codes(call, work->refused, rows));
    if (!recalled) return call_refuse(call, "ERR the log has no decisions of this post");
    for (uint32_t row = 0; row < rows; row++) {
        if (row % BLOCK_ROWS == 0) work_fetch(call, work, row);
        post_row(call, &post, row);
    }
    if (!call->replaying) {
        call_note_codes(call, work->decided, rows);
        call_note_codes(call, work->refused, rows);
    }
    if (!deciding_raise_horizon(&post.deciding))
        return call_refuse(call, "ERR the log has no horizon of this post");
    frame_add(&post.frame, work);
    frame_end(&post.frame);
    deciding_end(&post.deciding);
    work_end(work);
    if (!call->replaying) answer(call, &post);
    return CALL_DONE;
}
