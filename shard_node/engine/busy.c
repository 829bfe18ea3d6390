/* See busy.h. */
#include "busy.h"

#include <assert.h>

/* Places of the index: a power of two, at least twice as many as there are transactions. */
static uint32_t index_places(uint32_t rows) {
    uint32_t places = 2u;
    while (places < 2u * rows) places *= 2u;
    return places;
}

size_t busy_memory(uint32_t rows) {
    return rows * sizeof(struct wanted) + index_places(rows) * sizeof(link) + 2u * ARENA_SLACK;
}

void busy_begin(struct call *call, struct busy *busy, uint32_t rows) {
    *busy = (struct busy){.state = call->state, .mask = index_places(rows) - 1u};
    busy->wanted = arena_take(call, rows * sizeof *busy->wanted);
    busy->index = arena_take(call, (busy->mask + 1u) * sizeof *busy->index);
}

uint32_t busy_add(struct busy *busy, const struct bundle *bundle, const unsigned char *attempt) {
    uint32_t first = busy->wanted_count;
    for (uint32_t row = 0; row < bundle->rows; row++)
        busy->wanted[busy->wanted_count++] = (struct wanted){
            .id = bundle_id(bundle, row),
            .attempt = attempt,
            .slot = bundle_slot(bundle, row),
            .found = NO_RECORD,
        };
    return first;
}

static link *place_of(const struct busy *busy, const unsigned char *id, uint16_t slot) {
    return &busy->index[(uint32_t)scoped_hash(busy->state, id, slot) & busy->mask];
}

/* Marks the call's transactions that an attempt has prepared. */
static void mark(struct busy *busy, uint32_t number) {
    const struct attempt *attempt = attempt_at(busy->state, number);
    struct bundle bundle;
    bundle_recall(&bundle, attempt->bundle);
    for (uint32_t row = 0; row < attempt->rows; row++) {
        if (attempt->codes[row] != CODE_PREPARED) continue;
        const unsigned char *id = bundle_id(&bundle, row);
        uint16_t slot = bundle_slot(&bundle, row);
        for (link at = *place_of(busy, id, slot); at; at = busy->wanted[at - 1u].next) {
            struct wanted *wanted = &busy->wanted[at - 1u];
            if (wanted->slot != slot || memcmp(wanted->id, id, ID_BYTES)) continue;
            if (wanted->attempt && !memcmp(wanted->attempt, attempt->id, ATTEMPT_BYTES)) continue;
            if (wanted->found == NO_RECORD ||
                memcmp(attempt->id, attempt_at(busy->state, wanted->found)->id, ATTEMPT_BYTES) < 0)
                wanted->found = number;
        }
    }
}

static bool are_same(const struct wanted *one, const struct wanted *other) {
    return one->slot == other->slot && one->attempt == other->attempt && !memcmp(one->id, other->id, ID_BYTES);
}

/* A transaction that comes often in one bundle is in the index once: else each time that an attempt has it would cost
   as many steps. */
static void add_to_index(struct busy *busy, uint32_t number) {
    struct wanted *wanted = &busy->wanted[number];
    link *place = place_of(busy, wanted->id, wanted->slot);
    for (link at = *place; at; at = busy->wanted[at - 1u].next) {
        if (!are_same(&busy->wanted[at - 1u], wanted)) continue;
        wanted->first = at - 1u;
        return;
    }
    wanted->first = number;
    wanted->next = *place;
    *place = number + 1u;
}

static void search(struct busy *busy) {
    busy->searched = true;
    memset(busy->index, 0, (busy->mask + 1u) * sizeof *busy->index);
    for (uint32_t i = 0; i < busy->wanted_count; i++) add_to_index(busy, i);
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&busy->state->attempts, &walk)) != NO_RECORD;)
        mark(busy, number);
}

void busy_kept(struct busy *busy, uint32_t attempt) {
    if (busy->searched) mark(busy, attempt);
}

static bool may_be_reserved(uint8_t code) {
    return code == CODE_INSUFFICIENT_FUNDS || code == CODE_BALANCE_LIMIT || code == CODE_REFUND_EXCEEDS_PURCHASE ||
           code == CODE_HOLD_NOT_ACTIVE;
}

struct judgement busy_judge(const struct call *call, struct busy *busy, const struct work *work, uint32_t row,
                            uint32_t number, bool reserving, uint32_t *other) {
    struct judgement judgement = work_judge(call, work, row, reserving);
    if (judgement.code == CODE_BUSY) {
        *other = attempt_find(busy->state, judgement.pinned_by);
    } else if (may_be_reserved(judgement.code) && busy->state->attempts.live) {
        if (!busy->searched) search(busy);
        *other = busy->wanted[busy->wanted[number].first].found;
        if (*other != NO_RECORD) judgement = (struct judgement){.code = CODE_BUSY};
    }
    return judgement;
}
