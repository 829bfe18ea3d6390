/* See conditions.h. */
#include "conditions.h"

#include <assert.h>

#include "accounts.h"

#define FIRST_DUE_ROOM 64u

/* ------------------------------------------------------------------ the heap of what is due */

static bool is_before(const struct state *state, uint32_t a, uint32_t b) {
    const struct hold *one = hold_at(state, a), *other = hold_at(state, b);
    if (one->expires_ms != other->expires_ms) return one->expires_ms < other->expires_ms;
    int order = memcmp(one->id, other->id, ID_BYTES);
    if (order) return order < 0;
    if (one->slot != other->slot) return one->slot < other->slot;
    return one->fingerprint < other->fingerprint;
}

static void put_due(struct state *state, uint32_t place, uint32_t number) {
    state->due[place] = number;
    hold_at(state, number)->due = place;
}

/* Moves the hold at a place to where it belongs. */
static void settle_due(struct state *state, uint32_t place) {
    uint32_t number = state->due[place];
    for (; place && is_before(state, number, state->due[(place - 1u) / 2u]); place = (place - 1u) / 2u)
        put_due(state, place, state->due[(place - 1u) / 2u]);
    for (;;) {
        uint32_t child = 2u * place + 1u;
        if (child >= state->due_count) break;
        if (child + 1u < state->due_count && is_before(state, state->due[child + 1u], state->due[child])) child++;
        if (!is_before(state, state->due[child], number)) break;
        put_due(state, place, state->due[child]);
        place = child;
    }
    put_due(state, place, number);
}

static void add_due(struct state *state, uint32_t number) {
    assert(state->due_count < state->due_room);
    put_due(state, state->due_count++, number);
    settle_due(state, state->due_count - 1u);
}

static void remove_due(struct state *state, uint32_t number) {
    uint32_t place = hold_at(state, number)->due;
    assert(place < state->due_count && state->due[place] == number);
    hold_at(state, number)->due = NO_RECORD;
    uint32_t last = state->due[--state->due_count];
    if (last == number) return;
    put_due(state, place, last);
    settle_due(state, place);
}

uint32_t hold_first_due(const struct state *state) { return state->due_count ? state->due[0] : NO_RECORD; }

/* ------------------------------------------------------------------ holds */

bool holds_reserve(struct state *state, const uint64_t *hashes, uint32_t count) {
    if (!count) return true;
    if (!table_reserve(&state->holds, hashes, count)) return false;
    /* Pinned holds are counted as well: unpinning one needs no memory. */
    uint64_t needed = (uint64_t)state->holds.live + count, room = state->due_room ? state->due_room : FIRST_DUE_ROOM;
    while (room < needed) room *= 2u;
    if (room == state->due_room) return true;
    uint32_t *due = RM_TryAlloc(room * sizeof *due);
    if (!due) return false;
    if (state->due_count) memcpy(due, state->due, state->due_count * sizeof *due);
    RM_Free(state->due);
    state->due = due;
    state->due_room = (uint32_t)room;
    return true;
}

/* The hold after `place` with that name. */
static uint32_t next_hold(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, uint64_t hash,
                          uint32_t *place) {
    const struct segment *segment = table_segment(&state->holds, hash);
    uint32_t number;
    while ((number = table_next(segment, hash, place)) != NO_RECORD) {
        const struct hold *hold = hold_at(state, number);
        if (hold->slot == slot && !memcmp(hold->id, id, ID_BYTES)) break;
    }
    return number;
}

bool hold_exists(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot) {
    uint64_t hash = scoped_hash(state, id, slot);
    uint32_t place = (uint32_t)hash;
    return next_hold(state, id, slot, hash, &place) != NO_RECORD;
}

uint32_t hold_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, uint32_t account,
                   const unsigned char *pinned_by) {
    uint64_t hash = scoped_hash(state, id, slot);
    uint32_t place = (uint32_t)hash, number, found = NO_RECORD;
    while ((number = next_hold(state, id, slot, hash, &place)) != NO_RECORD) {
        const struct hold *hold = hold_at(state, number);
        if (hold->account != account) continue;
        if (pinned_by && memcmp(hold->pinned_by, pinned_by, ATTEMPT_BYTES)) continue;
        /* Not that which the table happens to have first: the answer is the same on every copy. */
        if (found == NO_RECORD || is_before(state, found, number)) found = number;
    }
    return found;
}

uint32_t hold_add(struct state *state, const struct hold *given) {
    uint32_t number = table_add(&state->holds, scoped_hash(state, given->id, given->slot));
    struct hold *hold = hold_at(state, number);
    link *head = &state->hold_heads[slot_place(given->slot)];
    *hold = *given;
    memset(hold->pinned_by, 0, sizeof hold->pinned_by);
    hold->previous = 0;
    hold->next = *head;
    if (*head) hold_at(state, *head - 1u)->previous = number + 1u;
    *head = number + 1u;
    state->kept_bytes += hold->details_length;
    add_due(state, number);
    return number;
}

void hold_release(struct state *state, struct hold *hold) {
    RM_Free(hold->details);
    state->kept_bytes -= hold->details_length;
}

void hold_remove(struct state *state, uint32_t number) {
    struct hold *hold = hold_at(state, number);
    if (!hold_is_pinned(hold)) remove_due(state, number);
    if (hold->next) hold_at(state, hold->next - 1u)->previous = hold->previous;
    if (hold->previous)
        hold_at(state, hold->previous - 1u)->next = hold->next;
    else
        state->hold_heads[slot_place(hold->slot)] = hold->next;
    hold_release(state, hold);
    table_remove(&state->holds, scoped_hash(state, hold->id, hold->slot), number);
}

void hold_pin(struct state *state, uint32_t number, const unsigned char attempt_id[ATTEMPT_BYTES]) {
    assert(!hold_is_pinned(hold_at(state, number)));
    remove_due(state, number);
    memcpy(hold_at(state, number)->pinned_by, attempt_id, ATTEMPT_BYTES);
}

void hold_unpin(struct state *state, uint32_t number) {
    struct hold *hold = hold_at(state, number);
    assert(hold_is_pinned(hold));
    memset(hold->pinned_by, 0, sizeof hold->pinned_by);
    add_due(state, number);
}

/* ------------------------------------------------------------------ refunds */

static struct refund *refund_at(const struct state *state, uint32_t number) {
    return table_record(&state->refunds, number);
}

static uint32_t refund_find(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot,
                            uint64_t hash) {
    const struct segment *segment = table_segment(&state->refunds, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD) {
        const struct refund *refund = refund_at(state, number);
        if (refund->slot == slot && !memcmp(refund->id, id, ID_BYTES)) break;
    }
    return number;
}

int64_t refund_sum(const struct state *state, const unsigned char id[ID_BYTES], uint16_t slot) {
    uint32_t number = refund_find(state, id, slot, scoped_hash(state, id, slot));
    return number == NO_RECORD ? 0 : refund_at(state, number)->sum;
}

static uint32_t refund_add(struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, uint64_t hash) {
    uint32_t number = table_add(&state->refunds, hash);
    struct refund *refund = refund_at(state, number);
    link *head = &state->refund_heads[slot_place(slot)];
    memcpy(refund->id, id, ID_BYTES);
    refund->slot = slot;
    refund->next = *head;
    if (*head) refund_at(state, *head - 1u)->previous = number + 1u;
    *head = number + 1u;
    return number;
}

void refund_change(struct state *state, const unsigned char id[ID_BYTES], uint16_t slot, int64_t change) {
    uint64_t hash = scoped_hash(state, id, slot);
    uint32_t number = refund_find(state, id, slot, hash);
    if (number == NO_RECORD) number = refund_add(state, id, slot, hash);
    struct refund *refund = refund_at(state, number);
    refund->sum += change;
    assert(refund->sum >= 0);
    if (refund->sum) return;
    if (refund->next) refund_at(state, refund->next - 1u)->previous = refund->previous;
    if (refund->previous)
        refund_at(state, refund->previous - 1u)->next = refund->next;
    else
        state->refund_heads[slot_place(slot)] = refund->next;
    table_remove(&state->refunds, hash, number);
}
