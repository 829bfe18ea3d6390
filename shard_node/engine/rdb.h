/* What a shard holds as part of a snapshot. */
#ifndef TALLYSTICK_RDB_H
#define TALLYSTICK_RDB_H

#include "state.h"

/* Of the whole value. Within it sections say how large their records are, see rdb_layout.h. */
#define RDB_VERSION 1

void rdb_save(RedisModuleIO *io, void *value);
/* NULL, and why in the log, when the file is of a newer engine, ends too early or contradicts itself. */
void *rdb_load(RedisModuleIO *io, int version);

#endif
