/* Running commands: live, and from the log. */
#ifndef TALLYSTICK_SHELL_H
#define TALLYSTICK_SHELL_H

#include "clock.h"
#include "redis_api.h"
#include "state.h"

/* Of the log's entries. An engine reads those of older versions; at a newer one it ends. */
#define LOG_VERSION 1
#define APPLY_COMMAND "tallystick.apply"

/* What the process has beside what it holds. */
struct engine {
    RedisModuleType *type;
    struct clock clock;
};
extern struct engine engine;

/* Every command of the table. */
int shell_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
/* tallystick.apply VERSION NAME NOW_US FRAME_ID NOTES [ARGUMENT ...] */
int shell_apply(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
/* The state under STATE_KEY of an open key; NULL when there is none. *wrong: something else is there. */
struct state *shell_state(RedisModuleKey *key, bool *wrong);

#endif
