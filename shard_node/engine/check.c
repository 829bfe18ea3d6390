/* `check`: whether legs could be carried out now. It changes nothing, and is not logged: system accounts that begin for
   it go with it. */
#include "deciding.h"

static uint8_t check_leg(const struct call *call, const struct work *work, uint32_t row, uint32_t own) {
    struct leg leg = work_leg(work, row, own);
    const unsigned char *pinned_by;
    return leg_refusal(call->state, &leg, call_now_ms(call), true, &pinned_by);
}

/* Transaction by transaction, also of a plain bundle, whose legs are in two blocks. */
static uint32_t check_legs(const struct call *call, const struct work *work, uint8_t *codes) {
    uint32_t rows = work->bundle.rows, count = 0;
    for (uint32_t row = 0; row < rows; row++) {
        if (work->bundle.plain) {
            for (uint32_t own = row; own < work->leg_count; own += rows)
                codes[count++] = check_leg(call, work, row, own);
        } else {
            for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++)
                codes[count++] = check_leg(call, work, row, own);
        }
    }
    return count;
}

enum call_result body_check(struct call *call) {
    int64_t owner;
    if (!call_number(call, 0, 0, ALL_OWNERS, &owner)) return call_refuse(call, "ERR malformed owner: not of 0 to 255");
    uint32_t rows = 0, begun = 0;
    size_t size = 0;
    const char *wrong = work_measure(call, 1, 1, &rows, &size);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    if (!arena_begin(call, size + UINT16_MAX + ARENA_SLACK)) return call_refuse(call, OUT_OF_MEMORY);
    struct work work;
    wrong = work_read(call, &work, call->arguments[1], (uint8_t)owner);
    if (wrong) return call_refuse(call, "ERR malformed %s", wrong);
    bool found = work_find_accounts(call, &work, &begun);
    if (found) {
        uint8_t *codes = arena_take(call, work.leg_count);
        uint32_t count = check_legs(call, &work, codes);
        RM_ReplyWithStringBuffer(call->ctx, (const char *)codes, count);
    }
    accounts_end_unused(call->state, begun);
    return found ? CALL_DONE : call_refuse(call, OUT_OF_MEMORY);
}
