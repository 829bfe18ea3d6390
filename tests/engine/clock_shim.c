/* Stands in for the clocks of the system, so that a test can make them jump. */
#include <time.h>

long long wall_us, monotonic_us;

int shim_clock_gettime(clockid_t id, struct timespec *time);

int shim_clock_gettime(clockid_t id, struct timespec *time) {
    long long us = id == CLOCK_REALTIME ? wall_us : monotonic_us;
    time->tv_sec = us / 1000000;
    time->tv_nsec = us % 1000000 * 1000;
    return 0;
}
