/* See clock.h. */
#define _POSIX_C_SOURCE 200809L
#include "clock.h"

#include <time.h>

/* Where it can be had, a clock that goes on while the machine sleeps: waking up is no jump. */
#ifdef CLOCK_BOOTTIME
#define ELAPSED_CLOCK CLOCK_BOOTTIME
#else
#define ELAPSED_CLOCK CLOCK_MONOTONIC
#endif

static int64_t microseconds(clockid_t id) {
    struct timespec time;
    clock_gettime(id, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

int64_t clock_read(struct clock *clock) {
    if (clock->manual) return clock->read_us;
    int64_t wall = microseconds(CLOCK_REALTIME), monotonic = microseconds(ELAPSED_CLOCK);
    if (!clock->read_us) {
        clock->read_us = wall;
        clock->read_at = monotonic;
    }
    int64_t expected = clock->read_us + (monotonic - clock->read_at);
    bool jumped = wall > expected + MAX_JUMP_US || wall < expected - MAX_JUMP_US;
    clock->lag_us = jumped ? wall - expected : 0;
    /* A little back: the last time used stands still until the clock has caught up; what is expected goes on. */
    if (!jumped && wall < clock->read_us) return wall;
    clock->read_us = jumped ? expected : wall;
    clock->read_at = monotonic;
    return clock->read_us;
}

int64_t clock_follow(struct clock *clock) {
    if (clock->manual) return 0;
    int64_t lag = (clock_read(clock), clock->lag_us);
    clock->read_us = 0;
    clock_read(clock);
    return lag;
}
