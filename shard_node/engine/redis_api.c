/* See redis_api.h. */
#include "redis_api.h"

#define REDIS_DEFINE(result, name, arguments) result(*RM_##name) arguments;
REDIS_API(REDIS_DEFINE)
#undef REDIS_DEFINE

typedef int (*get_api)(const char *, void *);

int redis_api_init(RedisModuleCtx *ctx, const char *name, int version, const char **missing) {
    /* The first member of the context is the function that finds all others. */
    get_api find = *(get_api *)ctx;
#define REDIS_FIND(result, name, arguments)                              \
    if (find("RedisModule_" #name, (void *)&RM_##name) != REDIS_OK) {    \
        *missing = "RedisModule_" #name;                                 \
        return REDIS_ERROR;                                              \
    }
    REDIS_API(REDIS_FIND)
#undef REDIS_FIND
    RM_SetModuleAttribs(ctx, name, version, REDIS_MODULE_API_VERSION);
    return REDIS_OK;
}
