/* See clock.h. */
#define _POSIX_C_SOURCE 200809L
#include "clock.h"

#include <time.h>

static int64_t microseconds(clockid_t id) {
    struct timespec time;
    clock_gettime(id, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

int64_t clock_read(struct clock *clock) {
    if (clock->manual) return clock->read_us;
    int64_t wall = microseconds(CLOCK_REALTIME), monotonic = microseconds(CLOCK_MONOTONIC);
    if (!clock->read_us) {
        clock->read_us = wall;
        clock->read_at = monotonic;
    }
    int64_t expected = clock->read_us + (monotonic - clock->read_at);
    clock->lag_us = wall > expected + MAX_JUMP_US ? wall - expected : 0;
    /* Back: the last time used stands still until the clock has caught up; what is expected goes on. */
    if (wall < clock->read_us) return wall;
    clock->read_us = clock->lag_us ? expected : wall;
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
