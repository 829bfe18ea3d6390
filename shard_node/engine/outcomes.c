/* See outcomes.h. */
#include "outcomes.h"

#include <assert.h>

#include "accounts.h"
#include "bundle.h"

struct outcome *outcome_find_in(const struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                                uint64_t hash) {
    const struct segment *segment = table_segment(&generation->outcomes, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD) {
        struct outcome *outcome = table_record(&generation->outcomes, number);
        if (outcome->slot == slot && !memcmp(outcome->id, id, ID_BYTES)) return outcome;
    }
    return NULL;
}

struct outcome *outcome_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot,
                             uint64_t hash) {
    struct outcome *outcome = outcome_find_in(&state->generations[state->current], id, slot, hash);
    const struct generation *previous = previous_generation(state);
    if (outcome || id_ms(id) > previous->newest_id_ms) return outcome;
    return outcome_find_in(previous, id, slot, hash);
}

const struct purchase *purchase_find_in(const struct generation *generation, const unsigned char id[ID_BYTES],
                                        uint16_t slot, uint64_t hash) {
    const struct segment *segment = table_segment(&generation->purchases, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD) {
        const struct purchase *purchase = table_record(&generation->purchases, number);
        if (purchase->slot == slot && !memcmp(purchase->id, id, ID_BYTES)) return purchase;
    }
    return NULL;
}

const struct purchase *purchase_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot,
                                     uint64_t hash) {
    const struct purchase *purchase = purchase_find_in(&state->generations[state->current], id, slot, hash);
    return purchase ? purchase : purchase_find_in(previous_generation(state), id, slot, hash);
}

struct outcome *outcome_add(struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                            uint64_t hash) {
    uint32_t number = table_add(&generation->outcomes, hash);
    struct outcome *outcome = table_record(&generation->outcomes, number);
    link *head = &generation->outcome_heads[slot_place(slot)];
    memcpy(outcome->id, id, ID_BYTES);
    outcome->slot = slot;
    outcome->next = *head;
    *head = number + 1u;
    int64_t ms = id_ms(id);
    if (ms > generation->newest_id_ms) generation->newest_id_ms = ms;
    return outcome;
}

struct purchase *purchase_add(struct generation *generation, const unsigned char id[ID_BYTES], uint16_t slot,
                              uint64_t hash) {
    uint32_t number = table_add(&generation->purchases, hash);
    struct purchase *purchase = table_record(&generation->purchases, number);
    link *head = &generation->purchase_heads[slot_place(slot)];
    memcpy(purchase->id, id, ID_BYTES);
    purchase->slot = slot;
    purchase->next = *head;
    *head = number + 1u;
    return purchase;
}

void purchase_name(struct purchase *purchase, const char *payer, uint8_t payer_length, const char *payee,
                   uint8_t payee_length) {
    assert(payer_length <= MAX_ACCOUNT_ID_BYTES && payee_length <= MAX_ACCOUNT_ID_BYTES);
    purchase->payer_length = payer_length;
    purchase->payee_length = payee_length;
    memcpy(purchase->names, payer, payer_length);
    memcpy(purchase->names + payer_length, payee, payee_length);
}

uint16_t currency_number(const char currency[3]) {
    return (uint16_t)(((currency[0] - 'A') * 26 + (currency[1] - 'A')) * 26 + (currency[2] - 'A'));
}

void currency_text(uint16_t number, char currency[3]) {
    currency[0] = (char)('A' + number / (26 * 26));
    currency[1] = (char)('A' + number / 26 % 26);
    currency[2] = (char)('A' + number % 26);
}

uint64_t tick_number(const unsigned char tick[6]) {
    uint64_t number = 0;
    memcpy(&number, tick, 6);
    return number;
}

void tick_bytes(uint64_t number, unsigned char tick[6]) { memcpy(tick, &number, 6); }

/* ------------------------------------------------------------------ rotation */

/* Outcomes that commits still need, with their hashes. */
struct carried {
    const struct outcome **outcomes;
    uint64_t *hashes;
    uint32_t count;
};

static void collect_unsettled(const struct state *state, struct carried *carried) {
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;) {
        const struct commit *commit = table_record(&state->commits, number);
        struct bundle bundle;
        bundle_recall(&bundle, commit->bundle);
        for (uint32_t row = 0; row < commit->rows; row++) {
            if (commit->codes[row] != CODE_COMMITTED) continue;
            const unsigned char *id = bundle_id(&bundle, row);
            uint16_t slot = bundle_slot(&bundle, row);
            uint64_t hash = scoped_hash(state, id, slot);
            const struct outcome *outcome = outcome_find(state, id, slot, hash);
            if (!outcome) continue;
            carried->outcomes[carried->count] = outcome;
            carried->hashes[carried->count++] = hash;
        }
    }
}

static void carry_over(const struct state *state, const struct carried *carried, struct generation *to) {
    for (uint32_t i = 0; i < carried->count; i++) {
        const struct outcome *old = carried->outcomes[i];
        struct outcome *outcome = outcome_add(to, old->id, old->slot, carried->hashes[i]);
        link next = outcome->next;
        *outcome = *old;
        outcome->next = next;
        if (!(old->code & OUTCOME_PURCHASE)) continue;
        const struct purchase *purchase = purchase_find(state, old->id, old->slot, carried->hashes[i]);
        assert(purchase);
        purchase_name(purchase_add(to, old->id, old->slot, carried->hashes[i]), purchase->names,
                      purchase->payer_length, purchase->names + purchase->payer_length, purchase->payee_length);
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

bool generations_rotate(struct state *state, uint32_t *count) {
    size_t room = 1;
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;)
        room += ((const struct commit *)table_record(&state->commits, number))->rows;
    struct generation fresh = {0};
    struct carried carried = {
        .outcomes = RM_TryAlloc(room * sizeof *carried.outcomes),
        .hashes = RM_TryAlloc(room * sizeof *carried.hashes),
    };
    bool done = carried.outcomes && carried.hashes && generation_init(&fresh);
    if (done) {
        collect_unsettled(state, &carried);
        done = table_reserve(&fresh.outcomes, carried.hashes, carried.count) &&
               table_reserve(&fresh.purchases, carried.hashes, carried.count);
    }
    if (done) {
        carry_over(state, &carried, &fresh);
        struct generation *forgotten = &state->generations[!state->current];
        struct meta *meta = &state->meta;
        meta->horizon_ms = larger(meta->horizon_ms, forgotten->newest_id_ms + 1);
        meta->attempt_horizon_ms = larger(meta->attempt_horizon_ms, forgotten->newest_attempt_ms + 1);
        generation_free(forgotten);
        *forgotten = fresh;
        state->current = !state->current;
        *count = carried.count;
    } else {
        generation_free(&fresh);
    }
    RM_Free(carried.outcomes);
    RM_Free(carried.hashes);
    return done;
}
