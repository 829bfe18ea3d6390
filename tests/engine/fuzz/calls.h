/* Bytes of a fuzzer as calls: each byte is a choice, so that small changes of the bytes are small changes of calls. */
#ifndef TALLYSTICK_FUZZ_CALLS_H
#define TALLYSTICK_FUZZ_CALLS_H

#include "stub_api.h"

#define FENCE "test/shard-0/1"
#define NOW_MS INT64_C(1800000000000)
/* Slots that accounts are in; the build has a few more. */
#define USED_SLOTS 4u
#define MAX_CALL_ARGUMENTS 64

struct input {
    const uint8_t *at;
    size_t left;
};

/* The next choice out of so many; the first one when the input has ended. */
uint32_t pick(struct input *input, uint32_t count);

struct made_call {
    RedisModuleString *argv[MAX_CALL_ARGUMENTS];
    int argc;
};

/* The next call: mostly one that makes sense, at times damaged. */
void call_make(struct input *input, struct made_call *call);
void call_free(struct made_call *call);
void call_add(struct made_call *call, const void *bytes, size_t size);
void call_add_text(struct made_call *call, const char *text);
void call_add_number(struct made_call *call, long long number);
/* Opens the accounts that calls name. */
void call_open_all(struct made_call *call);
/* Changes some of the bytes; returns the size, which is never larger. */
size_t damage(struct input *input, unsigned char *bytes, size_t size);

#endif
