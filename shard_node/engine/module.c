/* The module: loading, the data type, the commands, the clock. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "commands.h"
#include "digest.h"
#include "faults.h"
#include "rdb.h"
#include "shell.h"

#define MODULE_NAME "tallystick"
#define MODULE_VERSION 1
#define TYPE_NAME "tallystck"
#define SINCE "1.0.0"

static const struct redis_info_version info_version = {
    .version = 1,
    /* Neither histories nor key specs are given, so their sizes do not matter. */
    .history_size = 1,
    .key_spec_size = 1,
    .argument_size = sizeof(struct redis_argument),
};

/* A shard is only ever saved as part of a snapshot: as commands it would be larger than what it replaces. This runs in
   the child that rewrites the append-only file, which ends without success; the old file stays. */
static _Noreturn void refuse_rewrite(RedisModuleIO *io, RedisModuleString *key, void *value) {
    (void)key, (void)value;
    RM_LogIOError(io, "warning", "aof-use-rdb-preamble must be yes: the shard engine is only saved that way");
    _Exit(EXIT_FAILURE);
}

static size_t memory_usage(const void *value) { return state_memory(value); }

static void free_value(void *value) { state_free(value); }

static void debug_digest(RedisModuleDigest *digest, void *value) {
    uint64_t number = digest_of_shard(value);
    RM_DigestAddStringBuffer(digest, (const char *)&number, sizeof number);
    RM_DigestEndSequence(digest);
}

/* tallystick.clock US: what a manual clock shows from now on. */
static int set_clock(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    long long now_us;
    if (argc != 2) return RM_WrongArity(ctx);
    if (!engine.clock.manual) return RM_ReplyWithError(ctx, "ERR the clock goes by itself: load with 'clock manual'");
    if (RM_StringToLongLong(argv[1], &now_us) != REDIS_OK || now_us <= 0)
        return RM_ReplyWithError(ctx, "ERR malformed time: microseconds since 1970");
    engine.clock.read_us = now_us;
    return RM_ReplyWithSimpleString(ctx, "OK");
}

/* tallystick.time [FOLLOW] -> how far the wall clock is ahead of the time that is used, microseconds. */
static int show_time(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc > 2) return RM_WrongArity(ctx);
    if (argc == 2) {
        size_t length;
        const char *word = RM_StringPtrLen(argv[1], &length);
        if (length != 6 || strncasecmp(word, "FOLLOW", length))
            return RM_ReplyWithError(ctx, "ERR malformed time: FOLLOW, or nothing");
        return RM_ReplyWithLongLong(ctx, clock_follow(&engine.clock));
    }
    clock_read(&engine.clock);
    return RM_ReplyWithLongLong(ctx, engine.clock.lag_us);
}

static int make_command(RedisModuleCtx *ctx, const char *name, redis_command function, const char *flags,
                        const struct redis_command_info *info) {
    if (RM_CreateCommand(ctx, name, function, flags, 0, 0, 0) != REDIS_OK) return REDIS_ERROR;
    return RM_SetCommandInfo(RM_GetCommand(ctx, name), info);
}

static int make_table_commands(RedisModuleCtx *ctx) {
    for (int i = 0; i < command_count; i++) {
        const struct command *command = &commands[i];
        struct redis_command_info info = {
            .version = &info_version,
            .summary = command->summary,
            .complexity = command->complexity,
            .since = SINCE,
            .arity = command_arity(command),
            .arguments = command->arguments,
        };
        if (make_command(ctx, command->name, shell_command, command_flags(command), &info) != REDIS_OK)
            return REDIS_ERROR;
    }
    return REDIS_OK;
}

static int make_other_commands(RedisModuleCtx *ctx) {
    static const struct redis_argument apply[] = {
        {.name = "version", .type = REDIS_ARGUMENT_INTEGER, .key_spec_index = -1, .summary = "of the log's entries"},
        {.name = "command", .key_spec_index = -1, .summary = "that was carried out"},
        {.name = "now", .type = REDIS_ARGUMENT_INTEGER, .key_spec_index = -1, .summary = "its time, microseconds"},
        {.name = "frame", .key_spec_index = -1, .summary = "the id of its frame in the ledger, or -"},
        {.name = "decisions", .key_spec_index = -1, .summary = "what was decided: codes, and what else was read"},
        {.name = "argument", .key_spec_index = -1, .summary = "those of the command, behind the fence",
         .flags = REDIS_ARGUMENT_MULTIPLE | REDIS_ARGUMENT_OPTIONAL},
        {.name = NULL},
    };
    static const struct redis_argument clock[] = {
        {.name = "now", .type = REDIS_ARGUMENT_INTEGER, .key_spec_index = -1, .summary = "microseconds since 1970"},
        {.name = NULL},
    };
    static const struct redis_argument time[] = {
        {.name = "follow", .key_spec_index = -1, .summary = "FOLLOW: to follow the clock from now on",
         .flags = REDIS_ARGUMENT_OPTIONAL},
        {.name = NULL},
    };
    struct redis_command_info info = {.version = &info_version, .since = SINCE, .arity = -6, .arguments = apply};
    info.summary = "An entry of the log: applies what was decided. Not for clients.";
    info.complexity = "that of its command";
    if (make_command(ctx, APPLY_COMMAND, shell_apply, "write", &info) != REDIS_OK) return REDIS_ERROR;
    info.complexity = "O(1)";
    info.arity = 2;
    info.arguments = clock;
    info.summary = "Sets the clock of a test; refused unless the module was loaded with 'clock manual'.";
    if (make_command(ctx, MODULE_NAME ".clock", set_clock, "fast", &info) != REDIS_OK) return REDIS_ERROR;
    info.arity = -1;
    info.arguments = time;
    info.summary = "How far the wall clock jumped ahead of the time that is used, in microseconds; follows it on demand.";
    return make_command(ctx, MODULE_NAME ".time", show_time, "admin fast", &info);
}

/* Whether the append-only file is rewritten as a snapshot. Yes also when the server does not say. */
static bool rewrites_as_snapshot(RedisModuleCtx *ctx) {
    RedisModuleCallReply *reply = RM_Call(ctx, "CONFIG", "cc", "GET", "aof-use-rdb-preamble");
    if (!reply) return true;
    size_t length = 0;
    RedisModuleCallReply *value = RM_CallReplyArrayElement(reply, 1);
    const char *text = value ? RM_CallReplyStringPtr(value, &length) : NULL;
    bool no = text && length == 2 && !memcmp(text, "no", 2);
    RM_FreeCallReply(reply);
    return !no;
}

static bool read_module_arguments(RedisModuleString **argv, int argc) {
    if (!argc) return true;
    if (argc != 2) return false;
    size_t name_length, value_length;
    const char *name = RM_StringPtrLen(argv[0], &name_length), *value = RM_StringPtrLen(argv[1], &value_length);
    engine.clock.manual = name_length == 5 && !memcmp(name, "clock", 5) && value_length == 6 &&
                          !memcmp(value, "manual", 6);
    return engine.clock.manual;
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    const char *missing = NULL;
    if (redis_api_init(ctx, MODULE_NAME, MODULE_VERSION, &missing) != REDIS_OK) {
        /* Without RM_Log there is only this way to say it. */
        if (RM_Log) RM_Log(ctx, "warning", "this server has no %s: Redis 7.0 or newer is needed, or Valkey", missing);
        return REDIS_ERROR;
    }
    if (!read_module_arguments(argv, argc)) {
        RM_Log(ctx, "warning", "the shard engine takes no arguments but 'clock manual', for tests");
        return REDIS_ERROR;
    }
    if (!rewrites_as_snapshot(ctx)) {
        RM_Log(ctx, "warning", "aof-use-rdb-preamble must be yes: the shard engine is only saved that way");
        return REDIS_ERROR;
    }
    clock_read(&engine.clock);
    RM_SetModuleOptions(ctx, REDIS_OPTION_HANDLE_IO_ERRORS);
    struct redis_type_methods methods = {
        .version = REDIS_TYPE_METHODS_VERSION,
        .rdb_load = rdb_load,
        .rdb_save = rdb_save,
        .aof_rewrite = refuse_rewrite,
        .mem_usage = memory_usage,
        .digest = debug_digest,
        .free = free_value,
    };
    engine.type = RM_CreateDataType(ctx, TYPE_NAME, RDB_VERSION, &methods);
    if (!engine.type || make_table_commands(ctx) != REDIS_OK || make_other_commands(ctx) != REDIS_OK)
        return REDIS_ERROR;
    return faults_init(ctx);
}
