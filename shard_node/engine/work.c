/* See work.h. */
#include "work.h"

#include <assert.h>

/* ------------------------------------------------------------------ memory */

size_t work_memory(uint32_t rows, uint32_t legs) {
    size_t own = (2u * sizeof(uint32_t) + 4u * sizeof(int64_t)) * (size_t)legs;
    size_t transactions = (sizeof(uint32_t) + 2u * sizeof(uint64_t) + sizeof(char *) + 3u) * ((size_t)rows + 1u);
    return bundle_memory(rows, legs) + own + transactions + 14u * ARENA_SLACK;
}

size_t needs_memory(uint32_t rows) { return 4u * (sizeof(uint64_t) * (size_t)rows + ARENA_SLACK); }

const char *work_measure(const struct call *call, int first, int step, uint32_t *rows, size_t *size) {
    for (int argument = first; argument < call->count; argument += step) {
        size_t bytes;
        const unsigned char *bundle = call_bytes(call, argument, &bytes);
        uint32_t bundle_rows, legs;
        const char *wrong = bundle_measure(bundle, bytes, &bundle_rows, &legs);
        if (wrong) return wrong;
        *rows += bundle_rows;
        if (*rows > MAX_BATCH) return "bundle: too many transactions in one call";
        *size += work_memory(bundle_rows, legs);
    }
    return NULL;
}

void needs_begin(struct call *call, struct needs *needs, uint32_t rows) {
    size_t size = rows * sizeof(uint64_t);
    *needs = (struct needs){
        .outcomes = arena_take(call, size),
        .purchases = arena_take(call, size),
        .holds = arena_take(call, size),
        .refunds = arena_take(call, size),
    };
}

void work_take_codes(struct call *call, struct work *work) {
    size_t rows = work->bundle.rows;
    work->codes = arena_take(call, rows);
    work->refused = arena_take(call, rows);
    work->decided = arena_take(call, rows);
    memset(work->codes, 0, rows);
    memset(work->refused, 0, rows);
    memset(work->decided, 0, rows);
    work->fingerprints = arena_take(call, rows * sizeof *work->fingerprints);
    memset(work->fingerprints, 0, rows * sizeof *work->fingerprints);
}

void work_take_balances(struct call *call, struct work *work) {
    size_t size = work->leg_count * sizeof(int64_t);
    work->available = arena_take(call, size);
    /* With a place in front, for the byte that precedes the columns in a frame. */
    work->balances = (int64_t *)arena_take(call, 3u * size + sizeof(int64_t)) + 1;
    work->versions = work->balances + work->leg_count;
    work->held_deltas = work->versions + work->leg_count;
    for (uint32_t own = 0; own < work->leg_count; own++) work->available[own] = NO_BALANCE;
}

void work_end(struct work *work) {
    if (!work->details) return;
    for (uint32_t row = 0; row < work->bundle.rows; row++) RM_Free(work->details[row]);
    work->details = NULL;
}

/* ------------------------------------------------------------------ own legs and their accounts */

/* The place in the bundle of an own leg. */
static inline uint32_t bundle_place(const struct work *work, uint32_t own) {
    if (work->own_legs) return work->own_legs[own];
    return work->owner == 1u ? work->bundle.rows + own : own;
}

static void find_own_legs(struct call *call, struct work *work) {
    const struct bundle *bundle = &work->bundle;
    work->first_own = arena_take(call, (bundle->rows + 1u) * sizeof(uint32_t));
    work->own_legs = arena_take(call, bundle->leg_count * sizeof(uint32_t));
    work->leg_count = 0;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        work->first_own[row] = work->leg_count;
        for (uint32_t leg = bundle->first_leg[row]; leg < bundle->first_leg[row + 1u]; leg++)
            if (bundle_owns(bundle, work->owner, leg)) work->own_legs[work->leg_count++] = leg;
    }
    work->first_own[bundle->rows] = work->leg_count;
    work->details = arena_take(call, bundle->rows * sizeof *work->details);
    memset(work->details, 0, bundle->rows * sizeof *work->details);
}

static const char *read_bundle(struct call *call, struct work *work, RedisModuleString *argument, uint8_t owner,
                               bool is_new) {
    size_t size;
    const unsigned char *bytes = (const unsigned char *)RM_StringPtrLen(argument, &size);
    *work = (struct work){.argument = argument, .owner = owner};
    const char *wrong = bundle_read(call, &work->bundle, bytes, size);
    if (!wrong && is_new) wrong = bundle_check_new(call, &work->bundle);
    if (wrong) return wrong;
    if (!work->bundle.plain)
        find_own_legs(call, work);
    else if (owner == ALL_OWNERS)
        work->leg_count = work->bundle.leg_count;
    else
        work->leg_count = owner <= 1u ? work->bundle.rows : 0;
    if (!work->leg_count) return "owner: it has no leg";
    work->accounts = arena_take(call, work->leg_count * sizeof *work->accounts);
    return NULL;
}

const char *work_read(struct call *call, struct work *work, RedisModuleString *argument, uint8_t owner) {
    return read_bundle(call, work, argument, owner, !call->replaying);
}

void work_recall(struct call *call, struct work *work, const struct attempt *attempt) {
    *work = (struct work){.argument = attempt->bundle, .owner = attempt->owner, .leg_count = attempt->leg_count};
    bundle_recall(&work->bundle, attempt->bundle);
    if (work->bundle.plain) {
        bundle_find_texts(call, &work->bundle);
    } else {
        const char *wrong = read_bundle(call, work, attempt->bundle, attempt->owner, false);
        assert(!wrong && work->leg_count == attempt->leg_count);
        (void)wrong;
    }
    work->accounts = attempt->accounts;
}

bool work_find_accounts(struct call *call, struct work *work, uint32_t *begun) {
    struct state *state = call->state;
    const struct bundle *bundle = &work->bundle;
    uint64_t hashes[BLOCK_ROWS];
    for (uint32_t first = 0; first < work->leg_count; first += BLOCK_ROWS) {
        uint32_t count = work->leg_count - first < BLOCK_ROWS ? work->leg_count - first : BLOCK_ROWS;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t leg = bundle_place(work, first + i);
            hashes[i] = account_hash(state, bundle_account(bundle, leg), bundle->account_lengths[leg]);
            table_fetch_place(&state->accounts, hashes[i]);
        }
        for (uint32_t i = 0; i < count; i++) table_fetch_record(&state->accounts, hashes[i]);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t leg = bundle_place(work, first + i), length = bundle->account_lengths[leg];
            const char *name = bundle_account(bundle, leg);
            uint32_t number = account_find(state, name, length, hashes[i]);
            if (number == NO_RECORD && is_system_name(name)) {
                number = account_begin_system(state, name, length, hashes[i]);
                if (number == NO_RECORD) return false;
                ++*begun;
            }
            work->accounts[first + i] = number;
        }
    }
    return true;
}

void work_fetch(const struct call *call, const struct work *work, uint32_t first) {
    const struct state *state = call->state;
    const struct bundle *bundle = &work->bundle;
    const struct generation *previous = previous_generation(state);
    uint32_t end = first + BLOCK_ROWS < bundle->rows ? first + BLOCK_ROWS : bundle->rows;
    for (uint32_t row = first; work->hashes && row < end; row++) {
        table_fetch_place(&state->generations[state->current].outcomes, work->hashes[row]);
        if (id_ms(bundle_id(bundle, row)) <= previous->newest_id_ms)
            table_fetch_place(&previous->outcomes, work->hashes[row]);
    }
    uint32_t from = work->first_own ? work->first_own[first] : first;
    uint32_t to = work->first_own ? work->first_own[end] : end;
    for (uint32_t own = from; own < to; own++)
        if (work->accounts[own] != NO_RECORD) __builtin_prefetch(account_at(state, work->accounts[own]), 1);
    if (!bundle->plain || work->owner != ALL_OWNERS) return;
    for (uint32_t own = bundle->rows + first; own < bundle->rows + end; own++)
        if (work->accounts[own] != NO_RECORD) __builtin_prefetch(account_at(state, work->accounts[own]), 1);
}

/* ------------------------------------------------------------------ needs */

void work_need_outcomes(const struct call *call, struct work *work, struct needs *needs) {
    const struct bundle *bundle = &work->bundle;
    work->hashes = needs->outcomes + needs->outcome_count;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        uint64_t hash = scoped_hash(call->state, bundle_id(bundle, row), bundle_slot(bundle, row));
        needs->outcomes[needs->outcome_count++] = hash;
        if (bundle->kinds[row] == KIND_PURCHASE) needs->purchases[needs->purchase_count++] = hash;
    }
}

struct leg work_leg(const struct work *work, uint32_t row, uint32_t own) {
    const struct bundle *bundle = &work->bundle;
    uint32_t place = bundle_place(work, own);
    struct leg leg = {
        .account = work->accounts[own],
        .effect = bundle_effect(bundle, place),
        .amount = bundle_amount(bundle, place),
        .version = bundle_version(bundle, place),
        .currency = bundle_currency(bundle, place),
        .bound = bundle_bound(bundle, row),
    };
    if (leg.effect == EFFECT_HOLD)
        leg.condition = bundle_id(bundle, row);
    else if (bundle->related)
        leg.condition = bundle->related + (size_t)row * ID_BYTES;
    return leg;
}

bool work_need_conditions(const struct call *call, struct work *work, struct needs *needs, bool holds) {
    if (work->bundle.plain) return true;
    const struct state *state = call->state;
    for (uint32_t row = 0; row < work->bundle.rows; row++) {
        for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++) {
            struct leg leg = work_leg(work, row, own);
            if (leg.account == NO_RECORD) continue;
            uint64_t hash = scoped_hash(state, leg.condition, account_at(state, leg.account)->slot);
            if (leg.effect == EFFECT_REFUND) needs->refunds[needs->refund_count++] = hash;
            if (leg.effect != EFFECT_HOLD || !holds) continue;
            needs->holds[needs->hold_count++] = hash;
            work->details[row] = RM_TryAlloc(bundle_u16(work->bundle.detail_lengths, row) + 1u);
            if (!work->details[row]) return false;
        }
    }
    return true;
}

bool needs_meet(struct state *state, const struct needs *needs) {
    struct generation *current = current_generation(state);
    return table_reserve(&current->outcomes, needs->outcomes, needs->outcome_count) &&
           table_reserve(&current->purchases, needs->purchases, needs->purchase_count) &&
           table_reserve(&state->refunds, needs->refunds, needs->refund_count) &&
           holds_reserve(state, needs->holds, needs->hold_count);
}

/* ------------------------------------------------------------------ judging */

bool work_owns(const struct work *work, uint32_t row) {
    return work->bundle.plain || work->first_own[row] < work->first_own[row + 1u];
}

static uint8_t plain_credit(const struct call *call, const struct work *work, uint32_t row, uint32_t own) {
    if (work->accounts[own] == NO_RECORD) return CODE_ACCOUNT_NOT_FOUND;
    return credit_refusal(account_at(call->state, work->accounts[own]), bundle_i64(work->bundle.amounts, row),
                          bundle_currency(&work->bundle, row), NO_VERSION);
}

static uint8_t plain_debit(const struct call *call, const struct work *work, uint32_t row) {
    if (work->accounts[row] == NO_RECORD) return CODE_ACCOUNT_NOT_FOUND;
    return debit_refusal(account_at(call->state, work->accounts[row]), bundle_i64(work->bundle.amounts, row),
                         bundle_currency(&work->bundle, row), bundle_version(&work->bundle, row), false);
}

static struct judgement judge_plain(const struct call *call, const struct work *work, uint32_t row) {
    struct judgement judgement = {0};
    if (work->owner == ALL_OWNERS) judgement.code = plain_credit(call, work, row, work->bundle.rows + row);
    if (work->owner == 1u) judgement.code = plain_credit(call, work, row, row);
    judgement.leg = judgement.code != 0;
    if (!judgement.code && work->owner != 1u) judgement.code = plain_debit(call, work, row);
    return judgement;
}

struct judgement work_judge(const struct call *call, const struct work *work, uint32_t row, bool reserving) {
    if (work->bundle.plain) return judge_plain(call, work, row);
    uint32_t first = work->first_own[row], end = work->first_own[row + 1u], start = work->bundle.first_leg[row];
    assert(first < end);
    /* Those behind the transaction's first leg, then that one, if it is an own leg. */
    bool has_first = work->own_legs[first] == start;
    struct judgement judgement = {0};
    for (uint32_t n = 0; n < end - first && !judgement.code; n++) {
        uint32_t own = !has_first ? first + n : n + 1u < end - first ? first + n + 1u : first;
        struct leg leg = work_leg(work, row, own);
        judgement.code = leg_refusal(call->state, &leg, call_now_ms(call), reserving, &judgement.pinned_by);
        judgement.leg = (uint8_t)(work->own_legs[own] - start);
    }
    if (!judgement.code || judgement.code == CODE_BUSY) judgement.leg = 0;
    return judgement;
}

/* ------------------------------------------------------------------ carrying out */

static inline void note_leg(const struct call *call, struct work *work, uint32_t own, int64_t held_delta) {
    const struct account *account = account_at(call->state, work->accounts[own]);
    work->available[own] = account->available;
    work->balances[own] = account->available + account->held;
    work->versions[own] = account->version;
    work->held_deltas[own] = held_delta;
    work->applied_legs++;
}

static inline void apply_plain(struct call *call, struct work *work, uint32_t own, int64_t change) {
    struct account *account = account_at(call->state, work->accounts[own]);
    account->available += change;
    account->version++;
    note_leg(call, work, own, 0);
}

static void apply_row_plain(struct call *call, struct work *work, uint32_t row, const unsigned char *attempt_id) {
    int64_t amount = bundle_i64(work->bundle.amounts, row);
    if (work->owner == 1u && attempt_id) account_at(call->state, work->accounts[row])->coming -= amount;
    if (work->owner == 1u) {
        apply_plain(call, work, row, amount);
        return;
    }
    apply_plain(call, work, row, -amount);
    if (work->owner == ALL_OWNERS) apply_plain(call, work, work->bundle.rows + row, amount);
}

void work_apply(struct call *call, struct work *work, uint32_t row, uint64_t fingerprint,
                const unsigned char *attempt_id) {
    work->fingerprints[row] = fingerprint;
    if (work->bundle.plain) {
        apply_row_plain(call, work, row, attempt_id);
        return;
    }
    struct hold_terms terms = {.now_ms = call_now_ms(call), .fingerprint = fingerprint};
    for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++) {
        struct leg leg = work_leg(work, row, own);
        if (leg.effect == EFFECT_HOLD) {
            terms.details_length = bundle_u16(work->bundle.detail_lengths, row);
            terms.details = work->details[row];
            work->details[row] = NULL;
            memcpy(terms.details, work->bundle.details + work->bundle.detail_at[row], terms.details_length);
        }
        struct change change = leg_apply(call->state, &leg, &terms, attempt_id);
        note_leg(call, work, own, change.held_delta);
    }
}

bool work_reserve(struct call *call, struct work *work, uint32_t row, const unsigned char attempt_id[ATTEMPT_BYTES]) {
    if (work->bundle.plain) {
        account_at(call->state, work->accounts[row])->coming += bundle_i64(work->bundle.amounts, row);
        return false;
    }
    bool holds_back = false;
    for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++) {
        struct leg leg = work_leg(work, row, own);
        leg_reserve(call->state, &leg, attempt_id);
        holds_back |= leg.effect == EFFECT_DEBIT || leg.effect == EFFECT_HOLD;
    }
    return holds_back;
}

void work_release(struct call *call, struct work *work, uint32_t row, const unsigned char attempt_id[ATTEMPT_BYTES]) {
    if (work->bundle.plain) {
        account_at(call->state, work->accounts[row])->coming -= bundle_i64(work->bundle.amounts, row);
        return;
    }
    for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++) {
        struct leg leg = work_leg(work, row, own);
        leg_release(call->state, &leg, attempt_id);
    }
}
