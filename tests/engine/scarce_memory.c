/* Runs commands of the engine without a server, and has memory run out in the last one.

   Reads from standard input a number of commands, and each as a number of arguments and the arguments, every number and
   length as 4 bytes. The last command is run again and again on a fresh shard: the first time its first allocation fails,
   then its second one, and so on until it is carried out. A command that is refused must have changed nothing. Prints how
   many times it was refused. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "digest.h"

#define MAX_COMMANDS 64
#define MAX_ARGUMENTS 64
#define NOW_US INT64_C(1800000000000000)

struct RedisModuleString {
    int references;
    size_t size;
    char bytes[];
};

struct given {
    int count;
    RedisModuleString *arguments[MAX_ARGUMENTS]; /* the first one is the command's name */
};

static const struct {
    const char *name;
    enum call_result (*body)(struct call *);
} bodies[] = {
    {"bind", body_bind},       {"open", body_open},       {"post", body_post},     {"prepare", body_prepare},
    {"decide", body_decide},   {"finish", body_finish},   {"settle", body_settle}, {"abandon", body_abandon},
    {"expire", body_expire},   {"rotate", body_rotate},   {"check", body_check},   {"set_state", body_set_state},
};

/* ------------------------------------------------------------------ what Redis does for the engine */

static long allocations_left = -1; /* -1: no end of them */
static char refusal[256];
static uint64_t frames;

static void *try_alloc(size_t size) {
    if (!allocations_left) return NULL;
    if (allocations_left > 0) allocations_left--;
    return malloc(size);
}
static void *alloc(size_t size) { return malloc(size); }

static RedisModuleString *create(RedisModuleCtx *ctx, const char *bytes, size_t size) {
    (void)ctx;
    RedisModuleString *string = malloc(sizeof *string + size + 1u);
    string->references = 1;
    string->size = size;
    memcpy(string->bytes, bytes, size);
    string->bytes[size] = 0;
    return string;
}
static RedisModuleString *hold(RedisModuleCtx *ctx, RedisModuleString *string) {
    (void)ctx;
    string->references++;
    return string;
}
static void release(RedisModuleCtx *ctx, RedisModuleString *string) {
    (void)ctx;
    if (!--string->references) free(string);
}
static const char *bytes_of(const RedisModuleString *string, size_t *size) {
    *size = string->size;
    return string->bytes;
}
static int to_number(const RedisModuleString *string, long long *number) {
    char *end;
    *number = strtoll(string->bytes, &end, 10);
    return string->size && !*end ? REDIS_OK : REDIS_ERROR;
}
static int reply_error(RedisModuleCtx *ctx, const char *text) {
    (void)ctx;
    snprintf(refusal, sizeof refusal, "%s", text);
    return REDIS_OK;
}
static int reply_text(RedisModuleCtx *ctx, const char *text) { return (void)ctx, (void)text, REDIS_OK; }
static int reply_bytes(RedisModuleCtx *ctx, const char *bytes, size_t size) {
    return (void)ctx, (void)bytes, (void)size, REDIS_OK;
}
static int reply_number(RedisModuleCtx *ctx, long long number) { return (void)ctx, (void)number, REDIS_OK; }
static int reply_array(RedisModuleCtx *ctx, long length) { return (void)ctx, (void)length, REDIS_OK; }
static int add_to_stream(RedisModuleKey *key, int flags, RedisModuleStreamID *id, RedisModuleString **fields, long count) {
    (void)key, (void)flags, (void)id, (void)fields, (void)count;
    frames++;
    return REDIS_OK;
}
static void write_log(RedisModuleCtx *ctx, const char *level, const char *format, ...) {
    (void)ctx, (void)level, (void)format;
}
static void random_bytes(unsigned char *bytes, size_t size) { memset(bytes, 7, size); }

static void install(void) {
    RM_TryAlloc = try_alloc;
    RM_Alloc = alloc;
    RM_Free = free;
    RM_CreateString = create;
    RM_HoldString = hold;
    RM_FreeString = release;
    RM_StringPtrLen = bytes_of;
    RM_StringToLongLong = to_number;
    RM_ReplyWithError = reply_error;
    RM_ReplyWithSimpleString = reply_text;
    RM_ReplyWithStringBuffer = reply_bytes;
    RM_ReplyWithLongLong = reply_number;
    RM_ReplyWithArray = reply_array;
    RM_StreamAdd = add_to_stream;
    RM_Log = write_log;
    RM_GetRandomBytes = random_bytes;
}

/* ------------------------------------------------------------------ commands */

static uint32_t read_number(void) {
    uint32_t number;
    if (fread(&number, sizeof number, 1, stdin) != 1) exit(2);
    return number;
}

static void read_command(struct given *given) {
    given->count = (int)read_number();
    assert(given->count > 0 && given->count <= MAX_ARGUMENTS);
    for (int i = 0; i < given->count; i++) {
        uint32_t size = read_number();
        char *bytes = malloc(size + 1u);
        if (fread(bytes, 1, size, stdin) != size) exit(2);
        given->arguments[i] = create(NULL, bytes, size);
        free(bytes);
    }
}

static enum call_result run(struct state *state, const struct given *given) {
    struct call call = {.state = state, .now_us = NOW_US};
    call.arguments = (RedisModuleString **)given->arguments + 1;
    call.count = given->count - 1;
    enum call_result result = CALL_REFUSED;
    *refusal = 0;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        if (!strcmp(bodies[i].name, given->arguments[0]->bytes)) result = bodies[i].body(&call);
    free(call.notes);
    return result;
}

static void must_run(struct state *state, const struct given *given) {
    if (run(state, given) != CALL_REFUSED) return;
    printf("%s is refused: %s\n", given->arguments[0]->bytes, refusal);
    exit(1);
}

/* What the digest does not see. */
struct counts {
    uint32_t accounts, outcomes, purchases, ended, holds, refunds, attempts, commits, ticks, due;
    size_t kept_bytes;
};

static struct counts count(const struct state *state) {
    const struct generation *generation = &state->generations[state->current];
    struct counts counts;
    memset(&counts, 0, sizeof counts);
    counts.accounts = state->accounts.live;
    counts.outcomes = generation->outcomes.live;
    counts.purchases = generation->purchases.live;
    counts.ended = generation->ended.live;
    counts.holds = state->holds.live;
    counts.refunds = state->refunds.live;
    counts.attempts = state->attempts.live;
    counts.commits = state->commits.live;
    counts.ticks = state->commit_ticks.live;
    counts.due = state->due_count;
    counts.kept_bytes = state->kept_bytes;
    return counts;
}

/* Whether the last command was carried out although only so many of its allocations did not fail. */
static bool carried_out(const struct given *commands, uint32_t last, long allocations) {
    struct state *state = state_new();
    for (uint32_t i = 0; i < last; i++) must_run(state, &commands[i]);
    uint64_t digest = digest_of_shard(state), frames_before = frames;
    struct counts before = count(state);
    allocations_left = allocations;
    bool done = run(state, &commands[last]) != CALL_REFUSED;
    allocations_left = -1;
    if (!done) {
        struct counts after = count(state);
        bool same = digest == digest_of_shard(state) && !memcmp(&before, &after, sizeof before);
        if (!same || frames != frames_before || strncmp(refusal, "OOM ", 4)) {
            printf("refused after %ld allocations, %s: %s\n", allocations, same ? "unchanged" : "changed", refusal);
            exit(1);
        }
    }
    state_free(state);
    return done;
}

int main(void) {
    static struct given commands[MAX_COMMANDS];
    install();
    uint32_t number = read_number();
    assert(number > 0 && number <= MAX_COMMANDS);
    for (uint32_t i = 0; i < number; i++) read_command(&commands[i]);
    long refused = 0;
    while (!carried_out(commands, number - 1u, refused)) refused++;
    printf("%ld\n", refused);
    for (uint32_t i = 0; i < number; i++)
        for (int j = 0; j < commands[i].count; j++) release(NULL, commands[i].arguments[j]);
    return 0;
}
