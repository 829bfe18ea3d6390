/* See rules.h. */
#include "rules.h"

#include <assert.h>

static uint8_t state_refusal(const struct account *account) {
    switch (account->state & ACCOUNT_STATE_MASK) {
    case ACCOUNT_OPEN:
        return 0;
    case ACCOUNT_FROZEN:
        return CODE_ACCOUNT_FROZEN;
    default:
        return CODE_ACCOUNT_CLOSED;
    }
}

static uint8_t version_refusal(const struct account *account, int64_t version) {
    return version == NO_VERSION || version == account->version ? 0 : CODE_VERSION_MISMATCH;
}

static bool has_currency(const struct account *account, const char *currency) {
    return !memcmp(account->currency, currency, sizeof account->currency);
}

static uint8_t adding_refusal(const struct account *account, int64_t amount, const char *currency) {
    if (!has_currency(account, currency)) return CODE_CURRENCY_MISMATCH;
    int64_t coming = account->coming + amount, balance = account->available + account->held + coming;
    /* The first limit keeps the sum itself small, also for an account far below zero. */
    if (coming > MAX_MINOR || balance > MAX_MINOR) return CODE_BALANCE_LIMIT;
    const struct account_extra *extra = account_extra(account);
    if (extra && extra->maximum_balance && balance > extra->maximum_balance) return CODE_BALANCE_LIMIT;
    return 0;
}

static uint8_t taking_refusal(const struct account *account, int64_t amount, const char *currency, bool reserving) {
    const struct account_extra *extra = account_extra(account);
    if (extra && extra->maximum_transfer && amount > extra->maximum_transfer) return CODE_TRANSFER_LIMIT;
    if (!has_currency(account, currency)) return CODE_CURRENCY_MISMATCH;
    int64_t minimum = account_minimum(account);
    if (account->available - amount < minimum)
        return minimum == -MAX_MINOR ? CODE_BALANCE_LIMIT : CODE_INSUFFICIENT_FUNDS;
    if (reserving && account->held + amount > MAX_MINOR) return CODE_BALANCE_LIMIT;
    return 0;
}

uint8_t credit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version) {
    uint8_t code = state_refusal(account);
    if (!code) code = version_refusal(account, version);
    return code ? code : adding_refusal(account, amount, currency);
}

uint8_t debit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version,
                      bool reserving) {
    uint8_t code = state_refusal(account);
    if (!code) code = version_refusal(account, version);
    return code ? code : taking_refusal(account, amount, currency, reserving);
}

static uint8_t ending_refusal(const struct state *state, const struct leg *leg, const struct account *account,
                              int64_t now_ms, const unsigned char **pinned_by) {
    uint32_t number = hold_find(state, leg->condition, account->slot, leg->account, NULL);
    if (number == NO_RECORD) return CODE_HOLD_NOT_ACTIVE;
    const struct hold *hold = hold_at(state, number);
    if (hold_is_pinned(hold)) {
        *pinned_by = hold->pinned_by;
        return CODE_BUSY;
    }
    if (now_ms >= hold->expires_ms) return CODE_HOLD_NOT_ACTIVE;
    if (leg->effect == EFFECT_VOID) return 0;
    if (!has_currency(account, leg->currency)) return CODE_CURRENCY_MISMATCH;
    return leg->amount > hold->amount ? CODE_CAPTURE_EXCEEDS_HOLD : 0;
}

uint8_t leg_refusal(const struct state *state, const struct leg *leg, int64_t now_ms, bool reserving,
                    const unsigned char **pinned_by) {
    if (leg->account == NO_RECORD) return CODE_ACCOUNT_NOT_FOUND;
    const struct account *account = account_at(state, leg->account);
    /* What a frozen account has reserved may be set free, not spent. */
    uint8_t code = leg->effect == EFFECT_VOID ? 0 : state_refusal(account);
    if (!code) code = version_refusal(account, leg->version);
    if (code) return code;
    switch (leg->effect) {
    case EFFECT_CREDIT:
        return adding_refusal(account, leg->amount, leg->currency);
    case EFFECT_REFUND:
        code = adding_refusal(account, leg->amount, leg->currency);
        if (!code && refund_sum(state, leg->condition, account->slot) + leg->amount > leg->bound)
            code = CODE_REFUND_EXCEEDS_PURCHASE;
        return code;
    case EFFECT_HOLD:
        /* A hold may outlive the memory of its id: a second one of that name would be taken for the first. */
        if (hold_exists(state, leg->condition, account->slot)) return CODE_TRANSACTION_ID_EXPIRED;
        return taking_refusal(account, leg->amount, leg->currency, true);
    case EFFECT_DEBIT:
        return taking_refusal(account, leg->amount, leg->currency, reserving);
    default:
        return ending_refusal(state, leg, account, now_ms, pinned_by);
    }
}

/* ------------------------------------------------------------------ reserving */

/* The hold that a capture or void ends, pinned by that attempt unless it is NULL. */
static uint32_t find_hold(const struct state *state, const struct leg *leg, const unsigned char *attempt_id) {
    uint16_t slot = account_at(state, leg->account)->slot;
    uint32_t number = hold_find(state, leg->condition, slot, leg->account, attempt_id);
    assert(number != NO_RECORD);
    return number;
}

void leg_reserve(struct state *state, const struct leg *leg, const unsigned char attempt_id[ATTEMPT_BYTES]) {
    struct account *account = account_at(state, leg->account);
    switch (leg->effect) {
    case EFFECT_REFUND:
        refund_change(state, leg->condition, account->slot, leg->amount);
        account->coming += leg->amount;
        break;
    case EFFECT_CREDIT:
        account->coming += leg->amount;
        break;
    case EFFECT_DEBIT:
    case EFFECT_HOLD:
        account->available -= leg->amount;
        account->held += leg->amount;
        break;
    default:
        hold_pin(state, find_hold(state, leg, NULL), attempt_id);
    }
}

void leg_release(struct state *state, const struct leg *leg, const unsigned char attempt_id[ATTEMPT_BYTES]) {
    struct account *account = account_at(state, leg->account);
    switch (leg->effect) {
    case EFFECT_REFUND:
        refund_change(state, leg->condition, account->slot, -leg->amount);
        account->coming -= leg->amount;
        break;
    case EFFECT_CREDIT:
        account->coming -= leg->amount;
        break;
    case EFFECT_DEBIT:
    case EFFECT_HOLD:
        account->available += leg->amount;
        account->held -= leg->amount;
        break;
    default:
        hold_unpin(state, find_hold(state, leg, attempt_id));
    }
    assert(account->coming >= 0 && account->held >= 0);
}

/* ------------------------------------------------------------------ carrying out */

static void make_hold(struct state *state, const struct leg *leg, const struct hold_terms *terms) {
    struct hold hold = {
        .account = leg->account,
        .slot = account_at(state, leg->account)->slot,
        .amount = leg->amount,
        .expires_ms = terms->now_ms + leg->bound,
        .fingerprint = terms->fingerprint,
        .details = terms->details,
        .details_length = terms->details_length,
    };
    memcpy(hold.id, leg->condition, ID_BYTES);
    hold_add(state, &hold);
}

struct change leg_apply(struct state *state, const struct leg *leg, const struct hold_terms *terms,
                        const unsigned char *attempt_id) {
    struct account *account = account_at(state, leg->account);
    struct change change = {0};
    bool ends_hold = leg->effect == EFFECT_CAPTURE || leg->effect == EFFECT_VOID;
    if (attempt_id && !ends_hold) leg_release(state, leg, attempt_id);
    switch (leg->effect) {
    case EFFECT_REFUND:
        refund_change(state, leg->condition, account->slot, leg->amount);
        change.delta = leg->amount;
        break;
    case EFFECT_CREDIT:
        change.delta = leg->amount;
        break;
    case EFFECT_DEBIT:
        change.delta = -leg->amount;
        break;
    case EFFECT_HOLD:
        change.held_delta = leg->amount;
        make_hold(state, leg, terms);
        break;
    default: {
        uint32_t number = find_hold(state, leg, attempt_id);
        change = (struct change){.delta = -leg->amount, .held_delta = -hold_at(state, number)->amount};
        hold_remove(state, number);
    }
    }
    account->available += change.delta - change.held_delta;
    account->held += change.held_delta;
    account->version++;
    return change;
}
