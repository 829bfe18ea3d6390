/* Running commands: live, and from the log.

   Live: the fence, the limit of the ledger and the time are checked here, then the body runs. What it did is logged as
   one entry: the time, the frame's id, what was noted as decided, and the command's own arguments, which are not
   copied. From the log: the same body, with what was noted.

   Invariant: what is in the log was done, and what was done is in the log. So a body that fails while the log is
   applied, or a log that cannot be read, ends the process. */
#include "shell.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

#define WRONG_TYPE "WRONGTYPE the key %s holds something else than the shard engine's"
/* After a call the arena keeps no more than this. */
#define ARENA_KEPT (16u * 1024u * 1024u)
#define FRAME_ID_BYTES 48u

struct engine engine;

struct keys {
    RedisModuleString *state_name, *ledger_name;
    RedisModuleKey *state, *ledger;
    bool fresh; /* the state was made by this call */
};

static RedisModuleKey *open_key(RedisModuleCtx *ctx, RedisModuleString *name, bool writes) {
    return RM_OpenKey(ctx, name, writes ? REDIS_READ | REDIS_WRITE : REDIS_READ);
}

/* A state that was made by a call which was refused is none. */
static void keys_close(struct call *call, struct keys *keys, enum call_result result) {
    if (keys->fresh && result == CALL_DONE) RM_ModuleTypeSetValue(keys->state, engine.type, call->state);
    if (keys->fresh && result != CALL_DONE) state_free(call->state);
    if (keys->state) RM_CloseKey(keys->state);
    if (keys->ledger) RM_CloseKey(keys->ledger);
    RM_FreeString(call->ctx, keys->state_name);
    RM_FreeString(call->ctx, keys->ledger_name);
}

struct state *shell_state(RedisModuleKey *key, bool *wrong) {
    *wrong = false;
    if (!key || RM_KeyType(key) == REDIS_KEY_EMPTY) return NULL;
    if (RM_ModuleTypeGetType(key) == engine.type) return RM_ModuleTypeGetValue(key);
    *wrong = true;
    return NULL;
}

/* Opens both keys; makes the state for the command that may. The state is NULL where there is none. */
static bool keys_open(struct call *call, struct keys *keys, const struct command *command) {
    bool writes = command->traits & COMMAND_WRITES, wrong;
    *keys = (struct keys){.state_name = RM_CreateString(call->ctx, STATE_KEY, sizeof STATE_KEY - 1u),
                          .ledger_name = RM_CreateString(call->ctx, LEDGER_KEY, sizeof LEDGER_KEY - 1u)};
    keys->state = open_key(call->ctx, keys->state_name, writes);
    call->state = shell_state(keys->state, &wrong);
    if (wrong) return call_refuse(call, WRONG_TYPE, STATE_KEY) == CALL_DONE;
    if (writes) {
        keys->ledger = call->ledger = open_key(call->ctx, keys->ledger_name, true);
        int type = RM_KeyType(keys->ledger);
        if (type != REDIS_KEY_EMPTY && type != REDIS_KEY_STREAM)
            return call_refuse(call, WRONG_TYPE, LEDGER_KEY) == CALL_DONE;
    }
    if (!call->state && command->traits & COMMAND_MAKES) {
        call->state = state_new();
        if (!call->state) return call_refuse(call, "OOM no memory for an empty shard") == CALL_DONE;
        keys->fresh = true;
    }
    return true;
}

static bool is_fence(const struct meta *meta, RedisModuleString *fence) {
    size_t length;
    const char *text = RM_StringPtrLen(fence, &length);
    return length == meta->fence_length && !memcmp(text, meta->fence, length);
}

/* Whether the ledger's stream takes another frame. Only somebody else's entry has the greatest id; behind it there is no
   place, which would show only when a command has changed the shard. */
static bool has_place_for_frames(RedisModuleKey *ledger) {
    RedisModuleStreamID last = {0};
    long fields;
    if (RM_KeyType(ledger) == REDIS_KEY_EMPTY) return true;
    if (RM_StreamIteratorStart(ledger, REDIS_STREAM_REVERSE, NULL, NULL) != REDIS_OK) return true;
    RM_StreamIteratorNextID(ledger, &last, &fields);
    RM_StreamIteratorStop(ledger);
    return last.ms < UINT64_MAX || last.sequence < UINT64_MAX;
}

/* What is checked of every live command before its body looks at it. */
static bool may_run(struct call *call, const struct command *command, RedisModuleString *fence) {
    const struct state *state = call->state;
    if (fence && (!state || !is_fence(&state->meta, fence))) {
        call_refuse(call, "STALE_EPOCH the shard is at %s", state ? state->meta.fence : "no epoch");
        return false;
    }
    if (!state) {
        call_refuse(call, "STALE_EPOCH this Redis holds no shard");
        return false;
    }
    if (call->ledger && !has_place_for_frames(call->ledger)) {
        call_refuse(call, "ERR the ledger has an entry that is not the shard's, behind which no frame has place");
        return false;
    }
    if (command->traits & COMMAND_BEGINS && state->meta.backlog >= state->meta.backlog_limit) {
        call_refuse(call, "LEDGER_FULL %" PRId64 " entries wait to be archived", state->meta.backlog);
        return false;
    }
    return true;
}

/* The body, and what is the same after all that write. */
static enum call_result run(struct call *call, const struct command *command) {
    enum call_result result = command->body(call);
    if (result == CALL_DONE && command->traits & COMMAND_WRITES) {
        call->state->meta.used_us = call->now_us;
        if (!(command->traits & COMMAND_MARKS)) call->state->meta.calls++;
    }
    struct arena *arena = &call->state->arena;
    if (arena->size > ARENA_KEPT) {
        RM_Free(arena->base);
        *arena = (struct arena){0};
    }
    return result;
}

static void log_call(struct call *call, const struct command *command) {
    char frame[FRAME_ID_BYTES] = "-";
    if (call->has_frame)
        snprintf(frame, sizeof frame, "%" PRIu64 "-%" PRIu64, call->frame_id.ms, call->frame_id.sequence);
    RM_Replicate(call->ctx, APPLY_COMMAND, "lclcbv", (long long)LOG_VERSION, command->name, (long long)call->now_us,
                 frame, (const char *)(call->notes ? call->notes : (const unsigned char *)""), call->notes_used,
                 call->arguments, (size_t)call->count);
}

int shell_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    size_t length;
    const char *name = RM_StringPtrLen(argv[0], &length);
    const struct command *command = command_find(name, length);
    if (!command) return RM_ReplyWithError(ctx, "ERR a renamed command of the shard engine");
    int skipped = command->traits & COMMAND_FENCED ? 2 : 1;
    if (argc < skipped || !command_takes(command, argc - skipped)) return RM_WrongArity(ctx);

    struct call call = {.ctx = ctx, .arguments = argv + skipped, .count = argc - skipped};
    struct keys keys;
    enum call_result result = CALL_REFUSED;
    if (keys_open(&call, &keys, command) && may_run(&call, command, skipped == 2 ? argv[1] : NULL)) {
        int64_t now_us = clock_read(&engine.clock), used_us = call.state->meta.used_us;
        call.now_us = now_us > used_us ? now_us : used_us;
        result = run(&call, command);
        if (result == CALL_DONE && command->traits & COMMAND_WRITES) log_call(&call, command);
    }
    RM_Free(call.notes);
    keys_close(&call, &keys, result);
    return REDIS_OK;
}

static _Noreturn void end_process(RedisModuleCtx *ctx, const char *why) {
    RM_Log(ctx, "warning", "an entry of the log cannot be applied, this shard must not go on: %s", why);
    abort();
}

/* What precedes the arguments of an entry of the log. NULL: it was read. */
static const char *read_entry(struct call *call, RedisModuleString **argv, const struct command **command) {
    long long version, now_us;
    if (RM_StringToLongLong(argv[1], &version) != REDIS_OK || version < 1 || version > LOG_VERSION)
        return "it is of another version";
    size_t length;
    const char *text = RM_StringPtrLen(argv[2], &length);
    *command = command_find(text, length);
    if (!*command || !((*command)->traits & COMMAND_WRITES)) return "it is of a command that this engine does not log";
    if (RM_StringToLongLong(argv[3], &now_us) != REDIS_OK || now_us < 0) return "it has no time";
    call->now_us = now_us;
    text = RM_StringPtrLen(argv[4], &length);
    if (length != 1 || *text != '-') {
        if (!stream_id_read(text, length, &call->frame_id)) return "it has no id for its frame";
        call->has_frame = true;
    }
    /* Read only: notes are written live. */
    call->notes = (unsigned char *)(uintptr_t)RM_StringPtrLen(argv[5], &call->notes_size);
    return NULL;
}

int shell_apply(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (!(RM_GetContextFlags(ctx) & (REDIS_FLAG_LOADING | REDIS_FLAG_REPLICATED)))
        return RM_ReplyWithError(ctx, "ERR " APPLY_COMMAND " is only for the log and for replicas");
    const int fixed = 6;
    const struct command *command;
    struct call call = {.ctx = ctx, .arguments = argv + fixed, .count = argc - fixed, .replaying = true};
    if (argc < fixed) end_process(ctx, "it ends too early");
    const char *why = read_entry(&call, argv, &command);
    if (!why && !command_takes(command, call.count)) why = "it has another number of arguments";
    if (why) end_process(ctx, why);
    struct keys keys;
    if (!keys_open(&call, &keys, command) || !call.state) end_process(ctx, "there is no shard");
    if (run(&call, command) != CALL_DONE) end_process(ctx, command->name);
    if (call.notes_used != call.notes_size) end_process(ctx, "it has more decisions than its command");
    keys_close(&call, &keys, CALL_DONE);
    /* Into this server's own log. */
    RM_ReplicateVerbatim(ctx);
    return RM_ReplyWithSimpleString(ctx, "OK");
}
