/* The time that live commands get: the wall clock, but for jumps.

   A wall clock that jumps ahead would expire holds and ids for ever; after one that is set back time would stand still,
   and new attempts would be of the future. So a jump of more than MAX_JUMP_US within a process, either way, is not
   followed: time then goes on by the monotonic clock until the wall clock is right again, or an operator says otherwise.
   A process trusts the wall clock when it starts, for how long it was down it cannot know. That time never goes back is the state's affair: a call
   takes the larger of this and the last time used. */
#ifndef TALLYSTICK_CLOCK_H
#define TALLYSTICK_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define MAX_JUMP_US INT64_C(60000000)

struct clock {
    bool manual;       /* for tests: it shows what it was set to, and goes by no other clock */
    int64_t read_us;   /* what was read last, microseconds since 1970 */
    int64_t read_at;   /* by the monotonic clock, microseconds */
    int64_t lag_us;    /* how far a jump that was not followed is ahead, negative: back; 0 for none */
};

/* The next reading; moves the clock on. */
int64_t clock_read(struct clock *clock);
/* Follows the wall clock wherever it has jumped to; how far ahead that was, microseconds. */
int64_t clock_follow(struct clock *clock);

#endif
