/* The legs that a participant keeps prepared for an attempt. */
#ifndef TALLYSTICK_PREPARED_H
#define TALLYSTICK_PREPARED_H

#include "attempts.h"
#include "bundle.h"

struct prepared_leg {
    uint32_t account; /* record number */
    uint8_t effect;
    int64_t amount; /* minor units */
};

struct prepared_walk {
    const struct attempt *attempt;
    struct bundle bundle;
    uint32_t row, number, leg, own;
};

void prepared_begin(struct prepared_walk *walk, const struct attempt *attempt);
/* The next own leg of a transaction whose code is PREPARED; false when there is none. */
bool prepared_next(struct prepared_walk *walk, struct prepared_leg *leg);

#endif
