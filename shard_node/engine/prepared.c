/* See prepared.h. */
#include "prepared.h"

void prepared_begin(struct prepared_walk *walk, const struct attempt *attempt) {
    *walk = (struct prepared_walk){.attempt = attempt};
    bundle_recall(&walk->bundle, attempt->bundle);
}

/* A plain bundle's legs lie in two blocks, of which a participant owns the second, a leg a transaction. */
bool prepared_next(struct prepared_walk *walk, struct prepared_leg *leg) {
    const struct bundle *bundle = &walk->bundle;
    const struct attempt *attempt = walk->attempt;
    while (walk->row < bundle->rows) {
        uint32_t row = walk->row, at = bundle->plain ? bundle->rows + row : walk->leg;
        walk->leg++;
        if (bundle->plain || ++walk->number == bundle->leg_counts[row]) {
            walk->row++;
            walk->number = 0;
        }
        if (!bundle_owns(bundle, attempt->owner, at)) continue;
        uint32_t own = walk->own++;
        if (attempt->codes[row] != CODE_PREPARED) continue;
        *leg = (struct prepared_leg){
            .account = attempt->accounts[own],
            .effect = bundle_effect(bundle, at),
            .amount = bundle_amount(bundle, at),
        };
        return true;
    }
    return false;
}
