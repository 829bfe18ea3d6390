/* See reply.h. */
#include "reply.h"

#include <assert.h>

size_t others_memory(uint32_t rows) { return rows * sizeof(uint32_t) + ARENA_SLACK; }

void others_begin(struct call *call, struct others *others, uint32_t rows) {
    *others = (struct others){.entries = arena_take(call, rows * sizeof *others->entries)};
}

static bool are_same(const uint8_t *codes, uint32_t count) { return count && !memcmp(codes, codes + 1, count - 1u); }

void reply_codes(const struct call *call, const uint8_t *codes, uint32_t count) {
    RM_ReplyWithStringBuffer(call->ctx, (const char *)codes, are_same(codes, count) ? 1u : count);
}

void reply_legs(const struct call *call, const uint8_t *legs, uint32_t count) {
    bool none = !count || (!legs[0] && are_same(legs, count));
    RM_ReplyWithStringBuffer(call->ctx, (const char *)legs, none ? 0 : count);
}

void reply_balances(const struct call *call, const int64_t *available, uint32_t count, bool wanted) {
    RM_ReplyWithStringBuffer(call->ctx, (const char *)available, wanted ? count * sizeof *available : 0);
}

/* ------------------------------------------------------------------ others */

/* Takes out of the list what comes again, by a set of places that is at most half full. */
static void keep_first(struct others *others) {
    uint32_t places = 2u;
    while (places < 2u * others->count) places *= 2u;
    uint32_t *set = RM_Alloc(places * sizeof *set);
    memset(set, 0xff, places * sizeof *set);
    uint32_t count = 0;
    for (uint32_t i = 0; i < others->count; i++) {
        uint32_t entry = others->entries[i], place = (uint32_t)tick_hash(entry) & (places - 1u);
        while (set[place] != NO_RECORD && set[place] != entry) place = (place + 1u) & (places - 1u);
        if (set[place] == entry) continue;
        set[place] = entry;
        others->entries[count++] = entry;
    }
    others->count = count;
    RM_Free(set);
}

void reply_others(const struct call *call, const struct others *given) {
    if (!given->count) {
        RM_ReplyWithStringBuffer(call->ctx, "", 0);
        return;
    }
    struct others others = *given;
    keep_first(&others);
    unsigned char *packed = RM_Alloc(others.count * (ATTEMPT_BYTES + 1u + UINT8_MAX)), *at = packed;
    for (uint32_t i = 0; i < others.count; i++) {
        uint32_t number = others.entries[i] / 2u;
        size_t length = 0;
        const char *decider = "";
        if (others.entries[i] & 1u) {
            memcpy(at, commit_at(call->state, number)->id, ATTEMPT_BYTES);
        } else {
            const struct attempt *attempt = attempt_at(call->state, number);
            memcpy(at, attempt->id, ATTEMPT_BYTES);
            decider = RM_StringPtrLen(attempt->decider, &length);
        }
        assert(length <= UINT8_MAX);
        at[ATTEMPT_BYTES] = (uint8_t)length;
        memcpy(at + ATTEMPT_BYTES + 1u, decider, length);
        at += ATTEMPT_BYTES + 1u + length;
    }
    RM_ReplyWithStringBuffer(call->ctx, (const char *)packed, (size_t)(at - packed));
    RM_Free(packed);
}
