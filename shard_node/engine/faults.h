/* Memory that cannot be had, on purpose: only in the build for tests. */
#ifndef TALLYSTICK_FAULTS_H
#define TALLYSTICK_FAULTS_H

#include "redis_api.h"

/* Adds `tallystick.fail N`: from now on every Nth request for memory fails; 0 for none. Does nothing in other builds. */
int faults_init(RedisModuleCtx *ctx);

#endif
