/* See deciding.h. */
#include "deciding.h"

#define TICK_US 16u

size_t deciding_memory(uint32_t rows) {
    return busy_memory(rows) + needs_memory(rows) + FINGERPRINT_SCRATCH + ARENA_SLACK;
}

void deciding_begin(struct call *call, struct deciding *deciding, uint32_t rows) {
    *deciding = (struct deciding){.call = call};
    busy_begin(call, &deciding->busy, rows);
    needs_begin(call, &deciding->needs, rows);
    deciding->scratch = arena_take(call, FINGERPRINT_SCRATCH);
    deciding->cutoff_ms = id_cutoff_ms(call->state, call_now_ms(call));
}

bool deciding_recall(const struct deciding *deciding, const struct work *work, uint32_t row,
                     struct decision *decision) {
    const struct state *state = deciding->call->state;
    const struct bundle *bundle = &work->bundle;
    const struct outcome *outcome =
        outcome_find(state, bundle_id(bundle, row), bundle_slot(bundle, row), work->hashes[row]);
    if (!outcome) return false;
    if (outcome->fingerprint != decision->fingerprint) {
        decision->code = CODE_TRANSACTION_ID_REUSED;
    } else if (outcome_code(outcome) != CODE_COMMITTED) {
        decision->code = outcome_code(outcome);
        decision->leg = outcome->leg;
    } else {
        decision->other = commit_of(state, outcome);
        decision->other_is_commit = decision->other != NO_RECORD;
        decision->code = decision->other_is_commit ? CODE_ELSEWHERE : CODE_SETTLED;
    }
    return true;
}

bool deciding_expires(struct deciding *deciding, const struct work *work, uint32_t row) {
    int64_t ms = id_ms(bundle_id(&work->bundle, row));
    if (ms == NO_TIME || ms >= deciding->cutoff_ms) return false;
    deciding->raised_ms = deciding->cutoff_ms;
    return true;
}

void deciding_judge(struct deciding *deciding, const struct work *work, uint32_t row, uint32_t number,
                    struct decision *decision) {
    struct judgement judgement =
        busy_judge(deciding->call, &deciding->busy, work, row, number, false, &decision->other);
    decision->code = judgement.code ? judgement.code : CODE_COMMITTED;
    decision->leg = judgement.leg;
}

/* The first two legs: see check_general in bundle.c. */
static void record_purchase(struct generation *current, const struct work *work, uint32_t row) {
    const struct bundle *bundle = &work->bundle;
    uint32_t payer = bundle_leg(bundle, row, 0), payee = bundle_leg(bundle, row, 1);
    struct purchase *purchase =
        purchase_add(current, bundle_id(bundle, row), bundle_slot(bundle, row), work->hashes[row]);
    purchase_name(purchase, bundle_account(bundle, payer), bundle->account_lengths[payer],
                  bundle_account(bundle, payee), bundle->account_lengths[payee]);
}

void deciding_record(struct deciding *deciding, const struct work *work, uint32_t row,
                     const struct decision *decision, uint64_t tick) {
    struct generation *current = current_generation(deciding->call->state);
    const struct bundle *bundle = &work->bundle;
    uint32_t first = bundle_leg(bundle, row, 0);
    struct outcome *outcome =
        outcome_add(current, bundle_id(bundle, row), bundle_slot(bundle, row), work->hashes[row]);
    outcome->fingerprint = decision->fingerprint;
    outcome->amount = bundle_amount(bundle, first);
    outcome->currency = currency_number(bundle_currency(bundle, first));
    outcome->code = decision->code;
    outcome->leg = decision->leg;
    if (tick) outcome->code |= OUTCOME_ACROSS;
    tick_bytes(tick ? tick : (uint64_t)deciding->call->now_us / TICK_US, outcome->tick);
    if (decision->code != CODE_COMMITTED || bundle->kinds[row] != KIND_PURCHASE) return;
    outcome->code |= OUTCOME_PURCHASE;
    record_purchase(current, work, row);
}

uint64_t deciding_next_tick(const struct deciding *deciding) {
    uint64_t now = (uint64_t)deciding->call->now_us / TICK_US, next = deciding->call->state->meta.last_tick + 1u;
    return now > next ? now : next;
}

bool deciding_raise_horizon(struct deciding *deciding) {
    struct call *call = deciding->call;
    struct meta *meta = &call->state->meta;
    if (call->replaying) {
        if (!call_recall(call, &deciding->raised_ms, sizeof deciding->raised_ms)) return false;
    } else {
        call_note(call, &deciding->raised_ms, sizeof deciding->raised_ms);
    }
    if (deciding->raised_ms > meta->horizon_ms) meta->horizon_ms = deciding->raised_ms;
    return true;
}

void deciding_end(struct deciding *deciding) {
    accounts_end_unused(deciding->call->state, deciding->begun_accounts);
}
