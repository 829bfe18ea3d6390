/* See stub_api.h. */
#include "stub_api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "shell.h"

#define MAX_COMMANDS 64
#define MAX_DEPTH 8
#define MAX_ARGUMENTS (1u << 16)
#define MAX_STRINGS 64

/* Its bytes end with its memory, but for the NUL behind them that Redis promises: reading past them is found. */
struct RedisModuleString {
    uint32_t references;
    size_t size;
    char *bytes;
};

struct RedisModuleCtx {
    int (*find)(const char *, void *); /* as the real one begins */
    struct keyspace *keyspace;
    int flags;
};

struct RedisModuleKey {
    struct keyspace *keyspace;
    bool is_ledger, writes;
};

struct RedisModuleIO {
    unsigned char *bytes;
    size_t size, room, at;
    bool ended;
};

struct RedisModuleCommand {
    char name[40];
    redis_command function;
};

static struct RedisModuleCommand commands_made[MAX_COMMANDS];
static int commands_count;
static struct redis_type_methods type_methods;
static int type_object;

/* The reply that is being made: how many elements are missing on each level; -1 where that is said at the end. */
static struct {
    long missing[MAX_DEPTH], counted[MAX_DEPTH];
    int depth, done;
    long long number;
    struct {
        unsigned char *bytes;
        size_t size;
    } strings[MAX_STRINGS];
    int string_count;
    struct outcome_of_call call;
} reply;

static struct {
    RedisModuleString **argv;
    int argc;
} logged;

static struct {
    uint32_t every, requests;
} failing;

static _Noreturn void wrong(const char *what) {
    fprintf(stderr, "the engine did what no server takes: %s\n", what);
    abort();
}

/* ------------------------------------------------------------------ memory, strings */

static void *stub_Alloc(size_t size) {
    void *memory = malloc(size ? size : 1u);
    if (!memory) abort();
    return memory;
}

static void *stub_TryAlloc(size_t size) {
    if (failing.every && ++failing.requests % failing.every == 0) return NULL;
    return stub_Alloc(size);
}

static void stub_Free(void *memory) { free(memory); }

RedisModuleString *stub_string(const void *bytes, size_t size) {
    RedisModuleString *string = stub_Alloc(sizeof *string);
    *string = (RedisModuleString){.references = 1, .size = size, .bytes = stub_Alloc(size + 1u)};
    if (size) memcpy(string->bytes, bytes, size);
    string->bytes[size] = 0;
    return string;
}

void stub_free(RedisModuleString *string) {
    if (!string->references) wrong("a string is freed twice");
    if (--string->references) return;
    free(string->bytes);
    free(string);
}

static RedisModuleString *stub_CreateString(RedisModuleCtx *ctx, const char *bytes, size_t size) {
    (void)ctx;
    return stub_string(bytes, size);
}

static RedisModuleString *stub_HoldString(RedisModuleCtx *ctx, RedisModuleString *string) {
    (void)ctx;
    string->references++;
    return string;
}

static void stub_TrimStringAllocation(RedisModuleString *string) { (void)string; }

static void stub_FreeString(RedisModuleCtx *ctx, RedisModuleString *string) {
    (void)ctx;
    stub_free(string);
}

static const char *stub_StringPtrLen(const RedisModuleString *string, size_t *size) {
    if (size) *size = string->size;
    return string->bytes;
}

static int stub_StringToLongLong(const RedisModuleString *string, long long *number) {
    char text[24], again[24];
    if (!string->size || string->size >= sizeof text) return REDIS_ERROR;
    memcpy(text, string->bytes, string->size);
    text[string->size] = 0;
    *number = strtoll(text, NULL, 10);
    /* Only as it would be written. */
    snprintf(again, sizeof again, "%lld", *number);
    return strlen(again) == string->size && !strcmp(text, again) ? REDIS_OK : REDIS_ERROR;
}

/* ------------------------------------------------------------------ replies */

static void replied(void) {
    if (reply.done) wrong("more than one reply");
    while (reply.depth) {
        int level = reply.depth - 1;
        reply.counted[level]++;
        if (reply.missing[level] < 0 || --reply.missing[level] > 0) return;
        reply.depth--;
    }
    reply.done = 1;
}

static int open_array(long count) {
    if (reply.done || reply.depth == MAX_DEPTH) wrong("more than one reply, or too deep a one");
    if (!count) {
        replied();
        return REDIS_OK;
    }
    reply.missing[reply.depth] = count;
    reply.counted[reply.depth++] = 0;
    return REDIS_OK;
}

static int stub_ReplyWithArray(RedisModuleCtx *ctx, long count) {
    (void)ctx;
    return open_array(count);
}

static int stub_ReplyWithMap(RedisModuleCtx *ctx, long count) {
    (void)ctx;
    return open_array(2 * count);
}

static void stub_ReplySetArrayLength(RedisModuleCtx *ctx, long count) {
    (void)ctx;
    int level = reply.depth - 1;
    if (level < 0 || reply.missing[level] >= 0 || reply.counted[level] != count) wrong("an array of another length");
    reply.depth--;
    replied();
}

static int stub_ReplyWithError(RedisModuleCtx *ctx, const char *text) {
    (void)ctx;
    if (reply.depth) wrong("an error within a reply");
    reply.call.refused = true;
    snprintf(reply.call.error, sizeof reply.call.error, "%s", text);
    replied();
    return REDIS_OK;
}

static int stub_WrongArity(RedisModuleCtx *ctx) { return stub_ReplyWithError(ctx, "ERR wrong number of arguments"); }

static int stub_ReplyWithStringBuffer(RedisModuleCtx *ctx, const char *bytes, size_t size) {
    (void)ctx;
    /* All of it is read. */
    unsigned char *copy = stub_Alloc(size);
    if (size) memcpy(copy, bytes, size);
    if (reply.string_count < MAX_STRINGS) {
        reply.strings[reply.string_count].bytes = copy;
        reply.strings[reply.string_count++].size = size;
    } else {
        free(copy);
    }
    replied();
    return REDIS_OK;
}

static int stub_ReplyWithSimpleString(RedisModuleCtx *ctx, const char *text) {
    (void)ctx;
    if (strpbrk(text, "\r\n")) wrong("a line with a line's end");
    replied();
    return REDIS_OK;
}

static int stub_ReplyWithLongLong(RedisModuleCtx *ctx, long long number) {
    (void)ctx;
    if (!reply.depth) reply.number = number;
    replied();
    return REDIS_OK;
}

static int stub_ReplyWithNull(RedisModuleCtx *ctx) {
    (void)ctx;
    replied();
    return REDIS_OK;
}

long long stub_reply_number(void) { return reply.number; }

const unsigned char *stub_reply_string(int place, size_t *size) {
    if (place >= reply.string_count) return NULL;
    *size = reply.strings[place].size;
    return reply.strings[place].bytes;
}

static void begin_reply(void) {
    for (int i = 0; i < reply.string_count; i++) free(reply.strings[i].bytes);
    memset(&reply, 0, sizeof reply);
}

/* ------------------------------------------------------------------ keys, the ledger */

static RedisModuleKey *stub_OpenKey(RedisModuleCtx *ctx, RedisModuleString *name, int mode) {
    bool is_ledger = !strcmp(name->bytes, LEDGER_KEY), writes = mode & REDIS_WRITE;
    if (!is_ledger && strcmp(name->bytes, STATE_KEY)) wrong("a key that is not its own");
    if (!writes && !(is_ledger ? ctx->keyspace->has_ledger : ctx->keyspace->state != NULL)) return NULL;
    RedisModuleKey *key = stub_Alloc(sizeof *key);
    *key = (RedisModuleKey){.keyspace = ctx->keyspace, .is_ledger = is_ledger, .writes = writes};
    return key;
}

static void stub_CloseKey(RedisModuleKey *key) { free(key); }

static int stub_KeyType(RedisModuleKey *key) {
    if (!key) return REDIS_KEY_EMPTY;
    if (key->is_ledger) return key->keyspace->has_ledger ? REDIS_KEY_STREAM : REDIS_KEY_EMPTY;
    return key->keyspace->state ? 6 : REDIS_KEY_EMPTY;
}

static size_t stub_ValueLength(RedisModuleKey *key) { return key->keyspace->ledger.length; }

static RedisModuleType *stub_ModuleTypeGetType(RedisModuleKey *key) {
    return key->keyspace->state ? (RedisModuleType *)&type_object : NULL;
}

static void *stub_ModuleTypeGetValue(RedisModuleKey *key) { return key->keyspace->state; }

static int stub_ModuleTypeSetValue(RedisModuleKey *key, RedisModuleType *type, void *value) {
    if ((void *)type != &type_object || key->is_ledger || !key->writes) wrong("a value that cannot be set");
    key->keyspace->state = value;
    return REDIS_OK;
}

static int stub_StreamAdd(RedisModuleKey *key, int flags, RedisModuleStreamID *id, RedisModuleString **fields, long count) {
    if (!key || !key->is_ledger || !key->writes || flags) wrong("a frame that cannot be added");
    struct stream *stream = &key->keyspace->ledger;
    if (id->ms < stream->last.ms || (id->ms == stream->last.ms && id->sequence <= stream->last.sequence)) return REDIS_ERROR;
    key->keyspace->has_ledger = true;
    stream->last = *id;
    stream->length++;
    stream->digest = mix(stream->digest ^ id->ms, FOLD_K1 ^ id->sequence);
    for (long i = 0; i < 2 * count; i++) stream->digest = fold(fields[i]->bytes, fields[i]->size, stream->digest);
    return REDIS_OK;
}

static int stub_StreamIteratorStart(RedisModuleKey *key, int flags, RedisModuleStreamID *start, RedisModuleStreamID *end) {
    (void)flags, (void)start, (void)end;
    return key->is_ledger ? REDIS_OK : REDIS_ERROR;
}

/* The last entry, which is what the engine asks for. */
static int stub_StreamIteratorNextID(RedisModuleKey *key, RedisModuleStreamID *id, long *fields) {
    *id = key->keyspace->ledger.last;
    *fields = 1;
    return REDIS_OK;
}

static int stub_StreamIteratorStop(RedisModuleKey *key) {
    (void)key;
    return REDIS_OK;
}

static long long stub_StreamTrimByID(RedisModuleKey *key, int flags, RedisModuleStreamID *id) {
    (void)flags, (void)id;
    if (!key || !key->is_ledger || !key->keyspace->has_ledger) wrong("a ledger that is not there is trimmed");
    return 0;
}

/* ------------------------------------------------------------------ snapshots */

static void put(RedisModuleIO *io, const void *bytes, size_t size) {
    if (io->room - io->size < size) {
        io->room = 2u * (io->room + size);
        io->bytes = realloc(io->bytes, io->room);
        if (!io->bytes) abort();
    }
    if (size) memcpy(io->bytes + io->size, bytes, size);
    io->size += size;
}

static bool take(RedisModuleIO *io, void *to, size_t size) {
    if (io->ended || io->size - io->at < size) {
        io->ended = true;
        return false;
    }
    memcpy(to, io->bytes + io->at, size);
    io->at += size;
    return true;
}

static void stub_SaveUnsigned(RedisModuleIO *io, uint64_t number) { put(io, &number, sizeof number); }

static uint64_t stub_LoadUnsigned(RedisModuleIO *io) {
    uint64_t number = 0;
    return take(io, &number, sizeof number) ? number : 0;
}

static void stub_SaveStringBuffer(RedisModuleIO *io, const char *bytes, size_t size) {
    uint32_t length = (uint32_t)size;
    put(io, &length, sizeof length);
    put(io, bytes, size);
}

static char *stub_LoadStringBuffer(RedisModuleIO *io, size_t *size) {
    uint32_t length = 0;
    if (!take(io, &length, sizeof length) || io->size - io->at < length) {
        io->ended = true;
        return NULL;
    }
    char *bytes = stub_Alloc(length);
    take(io, bytes, length);
    *size = length;
    return bytes;
}

static int stub_IsIOError(RedisModuleIO *io) { return io->ended; }

static void stub_LogIOError(RedisModuleIO *io, const char *level, const char *format, ...) {
    (void)io, (void)level, (void)format;
}

bool stub_reload(const struct keyspace *from, struct keyspace *to, stub_change change, void *with) {
    RedisModuleIO io = {0};
    type_methods.rdb_save(&io, from->state);
    if (change) change(io.bytes, io.size, with);
    *to = (struct keyspace){.has_ledger = from->has_ledger, .ledger = from->ledger};
    to->state = type_methods.rdb_load(&io, 1);
    free(io.bytes);
    return to->state;
}

/* ------------------------------------------------------------------ commands, the log */

static int stub_CreateCommand(RedisModuleCtx *ctx, const char *name, redis_command function, const char *flags, int first,
                              int last, int step) {
    (void)ctx, (void)flags, (void)first, (void)last, (void)step;
    if (commands_count == MAX_COMMANDS) wrong("too many commands");
    struct RedisModuleCommand *command = &commands_made[commands_count++];
    snprintf(command->name, sizeof command->name, "%s", name);
    command->function = function;
    return REDIS_OK;
}

static RedisModuleCommand *stub_GetCommand(RedisModuleCtx *ctx, const char *name) {
    (void)ctx;
    for (int i = 0; i < commands_count; i++)
        if (!strcmp(commands_made[i].name, name)) return &commands_made[i];
    return NULL;
}

static int stub_SetCommandInfo(RedisModuleCommand *command, const struct redis_command_info *info) {
    return command && info ? REDIS_OK : REDIS_ERROR;
}

static void forget_log(void) {
    for (int i = 0; i < logged.argc; i++) stub_free(logged.argv[i]);
    logged.argc = 0;
}

static RedisModuleString *number_string(long long number) {
    char text[24];
    return stub_string(text, (size_t)snprintf(text, sizeof text, "%lld", number));
}

static int stub_Replicate(RedisModuleCtx *ctx, const char *name, const char *format, ...) {
    (void)ctx;
    if (reply.call.logged) wrong("two entries of the log for one command");
    reply.call.logged = true;
    forget_log();
    if (!logged.argv) logged.argv = stub_Alloc(MAX_ARGUMENTS * sizeof *logged.argv);
    logged.argv[logged.argc++] = stub_string(name, strlen(name));
    va_list values;
    va_start(values, format);
    for (; *format; format++) {
        if (*format == 'l') logged.argv[logged.argc++] = number_string(va_arg(values, long long));
        if (*format == 'c') {
            const char *text = va_arg(values, const char *);
            logged.argv[logged.argc++] = stub_string(text, strlen(text));
        } else if (*format == 'b') {
            const char *bytes = va_arg(values, const char *);
            size_t size = va_arg(values, size_t);
            logged.argv[logged.argc++] = stub_string(bytes, size);
        } else if (*format == 'v') {
            RedisModuleString **argv = va_arg(values, RedisModuleString **);
            size_t count = va_arg(values, size_t);
            if ((size_t)logged.argc + count > MAX_ARGUMENTS) wrong("too many arguments");
            for (size_t i = 0; i < count; i++) logged.argv[logged.argc++] = stub_HoldString(NULL, argv[i]);
        }
    }
    va_end(values);
    return REDIS_OK;
}

static int stub_ReplicateVerbatim(RedisModuleCtx *ctx) {
    if (!(ctx->flags & REDIS_FLAG_REPLICATED)) wrong("a command is logged as it came");
    return REDIS_OK;
}

static RedisModuleType *stub_CreateDataType(RedisModuleCtx *ctx, const char *name, int version, struct redis_type_methods *methods) {
    (void)ctx, (void)version;
    if (strlen(name) != 9) return NULL;
    type_methods = *methods;
    return (RedisModuleType *)&type_object;
}

static int stub_SetModuleAttribs(RedisModuleCtx *ctx, const char *name, int version, int api) {
    (void)ctx, (void)name, (void)version, (void)api;
    return REDIS_OK;
}

static void stub_DigestAddStringBuffer(RedisModuleDigest *digest, const char *bytes, size_t size) {
    (void)digest, (void)bytes, (void)size;
}
static void stub_DigestEndSequence(RedisModuleDigest *digest) { (void)digest; }
static RedisModuleCallReply *stub_Call(RedisModuleCtx *ctx, const char *name, const char *format, ...) {
    (void)ctx, (void)name, (void)format;
    return NULL;
}
static RedisModuleCallReply *stub_CallReplyArrayElement(RedisModuleCallReply *from, size_t place) {
    (void)place;
    return from;
}
static const char *stub_CallReplyStringPtr(RedisModuleCallReply *from, size_t *size) {
    (void)from, (void)size;
    return NULL;
}
static void stub_FreeCallReply(RedisModuleCallReply *from) { (void)from; }
static void stub_SetModuleOptions(RedisModuleCtx *ctx, int options) { (void)ctx, (void)options; }
static int stub_GetContextFlags(RedisModuleCtx *ctx) { return ctx->flags; }
static uint64_t stub_MonotonicMicroseconds(void) { return 1; }

/* The same in each run, so that a run can be repeated. */
static void stub_GetRandomBytes(unsigned char *to, size_t size) {
    for (size_t i = 0; i < size; i++) to[i] = (unsigned char)(0x5a + 7u * i);
}

static void stub_Log(RedisModuleCtx *ctx, const char *level, const char *format, ...) {
    (void)ctx, (void)level;
    va_list values;
    va_start(values, format);
    /* What is logged by an entry that cannot be applied is worth reading. */
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
}

static int find(const char *name, void *to) {
    void *found = NULL;
#define FIND(result, function, arguments) \
    if (!strcmp(name, "RedisModule_" #function)) found = (void *)stub_##function;
    REDIS_API(FIND)
#undef FIND
    memcpy(to, &found, sizeof found);
    return found ? REDIS_OK : REDIS_ERROR;
}

/* ------------------------------------------------------------------ for the fuzzer */

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

void stub_load(void) {
    RedisModuleCtx ctx = {.find = find};
    RedisModuleString *arguments[] = {stub_string("clock", 5), stub_string("manual", 6)};
    if (RedisModule_OnLoad(&ctx, arguments, 2) != REDIS_OK) wrong("it does not load");
    for (int i = 0; i < 2; i++) stub_free(arguments[i]);
}

void stub_fail(uint32_t every) {
    failing.every = every;
    failing.requests = 0;
}

static void run(struct keyspace *keyspace, int flags, RedisModuleString **argv, int argc) {
    RedisModuleCtx ctx = {.find = find, .keyspace = keyspace, .flags = flags};
    RedisModuleCommand *command = stub_GetCommand(NULL, argv[0]->bytes);
    if (!command) wrong("a command that there is not");
    begin_reply();
    command->function(&ctx, argv, argc);
    if (!reply.done) wrong("no reply, or a part of one");
    reply.call.replied = true;
}

struct outcome_of_call stub_run(struct keyspace *keyspace, RedisModuleString **argv, int argc) {
    run(keyspace, 0, argv, argc);
    if (reply.call.refused && reply.call.logged) wrong("a command that was refused is logged");
    return reply.call;
}

void stub_replicate(struct keyspace *keyspace) {
    run(keyspace, REDIS_FLAG_REPLICATED, logged.argv, logged.argc);
    if (reply.call.refused || reply.call.logged) wrong("an entry of the log is refused, or logged again");
    forget_log();
}

void stub_set_clock(int64_t now_us) { engine.clock.read_us = now_us; }

void stub_flush(struct keyspace *keyspace) {
    if (keyspace->state) type_methods.free(keyspace->state);
    *keyspace = (struct keyspace){0};
}
