/* See faults.h. */
#include "faults.h"

#ifndef TALLYSTICK_FAULTS

int faults_init(RedisModuleCtx *ctx) {
    (void)ctx;
    return REDIS_OK;
}

#else

static struct {
    void *(*allocate)(size_t);
    long long every, requests;
} faults;

static void *allocate_or_fail(size_t size) {
    if (faults.every && ++faults.requests % faults.every == 0) return NULL;
    return faults.allocate(size);
}

static int set_faults(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2) return RM_WrongArity(ctx);
    if (RM_StringToLongLong(argv[1], &faults.every) != REDIS_OK || faults.every < 0)
        return RM_ReplyWithError(ctx, "ERR malformed number");
    faults.requests = 0;
    return RM_ReplyWithSimpleString(ctx, "OK");
}

int faults_init(RedisModuleCtx *ctx) {
    faults.allocate = RM_TryAlloc;
    RM_TryAlloc = allocate_or_fail;
    return RM_CreateCommand(ctx, "tallystick.fail", set_faults, "fast", 0, 0, 0);
}

#endif
