/* The functions of Redis' module API that the engine uses, declared from the API's reference (Redis 7.0, Valkey).

   Redis hands out their addresses by name: redis_api_init asks for all of them and says which one is missing. */
#ifndef TALLYSTICK_REDIS_API_H
#define TALLYSTICK_REDIS_API_H

#include <stddef.h>
#include <stdint.h>

#define REDIS_OK 0
#define REDIS_ERROR 1
#define REDIS_READ 1
#define REDIS_WRITE 2
#define REDIS_STREAM_AUTOID 1
#define REDIS_STREAM_REVERSE 2 /* of an iterator */
#define REDIS_KEY_EMPTY 0
#define REDIS_KEY_STREAM 7
#define REDIS_POSTPONED_LENGTH (-1L)
/* A file that ends too early is reported to the loader instead of ending the process: a replica tries again. */
#define REDIS_OPTION_HANDLE_IO_ERRORS 1
#define REDIS_FLAG_REPLICATED (1 << 12)
#define REDIS_FLAG_LOADING (1 << 13)
#define REDIS_MODULE_API_VERSION 1
#define REDIS_TYPE_METHODS_VERSION 4

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleKey RedisModuleKey;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleIO RedisModuleIO;
typedef struct RedisModuleType RedisModuleType;
typedef struct RedisModuleDigest RedisModuleDigest;
typedef struct RedisModuleServerInfoData RedisModuleServerInfoData;
typedef struct RedisModuleCommand RedisModuleCommand;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef struct {
    uint64_t ms, sequence;
} RedisModuleStreamID;

typedef int (*redis_command)(RedisModuleCtx *, RedisModuleString **, int);

/* What a data type does, in the order of the API's version 4; what is not used stays NULL. */
struct redis_type_methods {
    uint64_t version;
    void *(*rdb_load)(RedisModuleIO *, int);
    void (*rdb_save)(RedisModuleIO *, void *);
    void (*aof_rewrite)(RedisModuleIO *, RedisModuleString *, void *);
    size_t (*mem_usage)(const void *);
    void (*digest)(RedisModuleDigest *, void *);
    void (*free)(void *);
    int (*aux_load)(RedisModuleIO *, int, int);
    void (*aux_save)(RedisModuleIO *, int);
    int aux_save_triggers;
    size_t (*free_effort)(RedisModuleString *, const void *);
    void (*unlink)(RedisModuleString *, const void *);
    void *(*copy)(RedisModuleString *, RedisModuleString *, const void *);
    int (*defrag)(void *, RedisModuleString *, void **);
    size_t (*mem_usage2)(void *, const void *, size_t);
    size_t (*free_effort2)(void *, const void *);
    void (*unlink2)(void *, const void *);
    void *(*copy2)(void *, void *, const void *);
};

/* COMMAND DOCS. The server reads arrays by the sizes in `version`, so that members may be added behind these. */
enum redis_argument_type { REDIS_ARGUMENT_STRING = 0, REDIS_ARGUMENT_INTEGER = 1, REDIS_ARGUMENT_BLOCK = 8 };
enum redis_argument_flags { REDIS_ARGUMENT_OPTIONAL = 1, REDIS_ARGUMENT_MULTIPLE = 2 };

struct redis_argument {
    const char *name;
    int type;
    int key_spec_index; /* -1 for none */
    const char *token;
    const char *summary;
    const char *since;
    int flags;
    const char *deprecated_since;
    const struct redis_argument *subarguments; /* of a block */
    const char *display_text;
};

struct redis_info_version {
    int version;
    size_t history_size, key_spec_size, argument_size;
};

struct redis_command_info {
    const struct redis_info_version *version;
    const char *summary;
    const char *complexity;
    const char *since;
    const void *history;
    const char *tips;
    int arity; /* with the command's name; negative: at least so many */
    const void *key_specs;
    const struct redis_argument *arguments;
};

#define REDIS_API(X)                                                                                              \
    X(void *, TryAlloc, (size_t))                                                                                 \
    X(void *, Alloc, (size_t))                                                                                    \
    X(void, Free, (void *))                                                                                       \
    X(int, CreateCommand, (RedisModuleCtx *, const char *, redis_command, const char *, int, int, int))           \
    X(RedisModuleCommand *, GetCommand, (RedisModuleCtx *, const char *))                                         \
    X(int, SetCommandInfo, (RedisModuleCommand *, const struct redis_command_info *))                             \
    X(int, SetModuleAttribs, (RedisModuleCtx *, const char *, int, int))                                          \
    X(int, WrongArity, (RedisModuleCtx *))                                                                        \
    X(int, ReplyWithError, (RedisModuleCtx *, const char *))                                                      \
    X(int, ReplyWithSimpleString, (RedisModuleCtx *, const char *))                                               \
    X(int, ReplyWithStringBuffer, (RedisModuleCtx *, const char *, size_t))                                       \
    X(int, ReplyWithLongLong, (RedisModuleCtx *, long long))                                                      \
    X(int, ReplyWithArray, (RedisModuleCtx *, long))                                                              \
    X(int, ReplyWithMap, (RedisModuleCtx *, long))                                                                \
    X(int, ReplyWithNull, (RedisModuleCtx *))                                                                     \
    X(void, ReplySetArrayLength, (RedisModuleCtx *, long))                                                        \
    X(RedisModuleKey *, OpenKey, (RedisModuleCtx *, RedisModuleString *, int))                                    \
    X(void, CloseKey, (RedisModuleKey *))                                                                         \
    X(int, KeyType, (RedisModuleKey *))                                                                           \
    X(size_t, ValueLength, (RedisModuleKey *))                                                                    \
    X(RedisModuleType *, CreateDataType, (RedisModuleCtx *, const char *, int, struct redis_type_methods *))      \
    X(int, ModuleTypeSetValue, (RedisModuleKey *, RedisModuleType *, void *))                                     \
    X(void *, ModuleTypeGetValue, (RedisModuleKey *))                                                             \
    X(RedisModuleType *, ModuleTypeGetType, (RedisModuleKey *))                                                   \
    X(RedisModuleString *, CreateString, (RedisModuleCtx *, const char *, size_t))                                \
    X(RedisModuleString *, HoldString, (RedisModuleCtx *, RedisModuleString *))                                   \
    X(void, TrimStringAllocation, (RedisModuleString *))                                                          \
    X(void, FreeString, (RedisModuleCtx *, RedisModuleString *))                                                  \
    X(const char *, StringPtrLen, (const RedisModuleString *, size_t *))                                          \
    X(int, StringToLongLong, (const RedisModuleString *, long long *))                                            \
    X(int, Replicate, (RedisModuleCtx *, const char *, const char *, ...))                                        \
    X(int, ReplicateVerbatim, (RedisModuleCtx *))                                                                 \
    X(int, StreamAdd, (RedisModuleKey *, int, RedisModuleStreamID *, RedisModuleString **, long))                 \
    X(int, StreamIteratorStart, (RedisModuleKey *, int, RedisModuleStreamID *, RedisModuleStreamID *))            \
    X(int, StreamIteratorNextID, (RedisModuleKey *, RedisModuleStreamID *, long *))                               \
    X(int, StreamIteratorStop, (RedisModuleKey *))                                                                \
    X(long long, StreamTrimByID, (RedisModuleKey *, int, RedisModuleStreamID *))                                  \
    X(void, SaveUnsigned, (RedisModuleIO *, uint64_t))                                                            \
    X(uint64_t, LoadUnsigned, (RedisModuleIO *))                                                                  \
    X(void, SaveStringBuffer, (RedisModuleIO *, const char *, size_t))                                            \
    X(char *, LoadStringBuffer, (RedisModuleIO *, size_t *))                                                      \
    X(void, DigestAddStringBuffer, (RedisModuleDigest *, const char *, size_t))                                   \
    X(void, DigestEndSequence, (RedisModuleDigest *))                                                             \
    X(RedisModuleCallReply *, Call, (RedisModuleCtx *, const char *, const char *, ...))                          \
    X(RedisModuleCallReply *, CallReplyArrayElement, (RedisModuleCallReply *, size_t))                            \
    X(const char *, CallReplyStringPtr, (RedisModuleCallReply *, size_t *))                                       \
    X(void, FreeCallReply, (RedisModuleCallReply *))                                                              \
    X(int, IsIOError, (RedisModuleIO *))                                                                          \
    X(void, SetModuleOptions, (RedisModuleCtx *, int))                                                            \
    X(void, Log, (RedisModuleCtx *, const char *, const char *, ...))                                             \
    X(void, LogIOError, (RedisModuleIO *, const char *, const char *, ...))                                       \
    X(int, GetContextFlags, (RedisModuleCtx *))                                                                   \
    X(uint64_t, MonotonicMicroseconds, (void))                                                                    \
    X(void, GetRandomBytes, (unsigned char *, size_t))

#define REDIS_DECLARE(result, name, arguments) extern result(*RM_##name) arguments;
REDIS_API(REDIS_DECLARE)
#undef REDIS_DECLARE

/* REDIS_OK, or REDIS_ERROR when the server lacks one of them; *missing is its name. */
int redis_api_init(RedisModuleCtx *ctx, const char *name, int version, const char **missing);

#endif
