/* A server in a few hundred lines, for running the engine's commands in one process: keys, a stream, strings with
   counts of references, replies that are counted, a log. What the engine must never do to it ends the process. */
#ifndef TALLYSTICK_STUB_API_H
#define TALLYSTICK_STUB_API_H

#include <stdbool.h>

#include "redis_api.h"

struct stream {
    RedisModuleStreamID last;
    uint64_t length, digest; /* of all that was ever added */
};

/* One shard's server. */
struct keyspace {
    void *state; /* of the engine's type; NULL for none */
    bool has_ledger;
    struct stream ledger;
};

/* What the last command did. */
struct outcome_of_call {
    bool replied, refused, logged;
    char error[256]; /* the beginning of it, where it was refused */
};

/* Loads the module. */
void stub_load(void);
/* Every `every`th request for memory fails from now on; 0 for none. */
void stub_fail(uint32_t every);
/* Runs a command by its name; the strings stay the caller's. */
struct outcome_of_call stub_run(struct keyspace *keyspace, RedisModuleString **argv, int argc);
/* Runs on the other what the last command logged, as a replica does. */
void stub_replicate(struct keyspace *keyspace);
void stub_set_clock(int64_t now_us);
void stub_flush(struct keyspace *keyspace);
/* Saves the shard and loads it again; false when it was not loaded. The saved bytes may be changed before. */
typedef void (*stub_change)(unsigned char *bytes, size_t size, void *with);
bool stub_reload(const struct keyspace *from, struct keyspace *to, stub_change change, void *with);

RedisModuleString *stub_string(const void *bytes, size_t size);
void stub_free(RedisModuleString *string);
/* Of the last reply: the number at the top, or the bytes of the string at that place among all strings. */
long long stub_reply_number(void);
const unsigned char *stub_reply_string(int place, size_t *size);

#endif
