/* One command on its way: read, check, decide and apply, log, answer.

   Every command that changes something has one body, which runs in two ways. Live, it judges each row, applies it and
   notes what it decided; then the shell logs `tallystick.apply` with the time, the frame's id, the notes and the
   command's own arguments, and the body answers. Replaying, it recalls what was noted instead of judging, and answers
   nobody. So a body reads neither the clock nor a limit, a balance or a state where the answer was noted; an engine
   with other rules that replays an older log comes to the same state.

   A body returns CALL_DONE when all went well and it has replied (replaying it replies nothing), and CALL_REFUSED when it
   has changed nothing and already replied with an error. Replaying, CALL_REFUSED ends the process: an apply that fails
   would make a replica another shard. CALL_IDLE: all went well, and there was nothing to do, which need not be logged. */
#ifndef TALLYSTICK_CALL_H
#define TALLYSTICK_CALL_H

#include "state.h"

enum call_result { CALL_DONE, CALL_REFUSED, CALL_IDLE };

struct call {
    RedisModuleCtx *ctx;
    struct state *state;
    RedisModuleString **arguments; /* those behind the fence */
    int count;                     /* in number and groups as commands.c says */
    bool replaying;
    int64_t now_us; /* the time of this call, live and replaying; never before that of an earlier one */
    /* The ledger's frame, if the call made one. Replaying, its id is given. */
    RedisModuleKey *ledger; /* open while the call runs; a stream, or empty */
    bool has_frame;
    RedisModuleStreamID frame_id;
    /* Notes: written live, read when replaying. */
    unsigned char *notes;
    size_t notes_size, notes_used;
};

static inline int64_t call_now_ms(const struct call *call) { return call->now_us / 1000; }

/* Replies with an error whose first word is its code ("ERR malformed bundle: ..."); returns CALL_REFUSED. Replaying it
   only logs. */
__attribute__((format(printf, 2, 3))) enum call_result call_refuse(struct call *call, const char *format, ...);

/* The argument's bytes. */
const unsigned char *call_bytes(const struct call *call, int argument, size_t *size);
/* The argument as a number of [least, most]; false when it is none. */
bool call_number(const struct call *call, int argument, int64_t least, int64_t most, int64_t *number);

/* Room for `size` bytes in all that arena_take will be asked for by this call; false without memory. Call it once, after
   the sizes are known and before anything is changed. Every piece is aligned to 16 bytes: add ARENA_SLACK a piece. */
#define ARENA_SLACK 16u
bool arena_begin(struct call *call, size_t size);
void *arena_take(struct call *call, size_t size); /* aborts when arena_begin asked for less */

/* Notes what was decided: bytes as they are; codes as two bytes when all are the same. Have room for all notes of the
   call before its first change: call_reserve_notes adds room for so many bytes, of a call_note_codes for count + 1, and
   returns false without memory. Noting more than was reserved aborts. Replaying, room is not needed. */
bool call_reserve_notes(struct call *call, size_t size);
void call_note(struct call *call, const void *bytes, size_t size);
void call_note_codes(struct call *call, const uint8_t *codes, uint32_t count);
/* Reads the same back, in the same order, when replaying; false when the log has something else there. */
bool call_recall(struct call *call, void *bytes, size_t size);
bool call_recall_codes(struct call *call, uint8_t *codes, uint32_t count);

/* A stream's id as Redis writes it, milliseconds-number, in digits; false when the text is none. */
bool stream_id_read(const char *text, size_t length, RedisModuleStreamID *id);

/* Appends a frame to the ledger's stream: `count` fields, each a name and a value in `fields`. `entries` is how many
   ledger entries it stands for: so many wait to be archived from now on. One frame a call. */
void call_append_frame(struct call *call, RedisModuleString **fields, long count, int64_t entries);

/* The bodies. */
enum call_result body_post(struct call *call);
enum call_result body_prepare(struct call *call);
enum call_result body_decide(struct call *call);
enum call_result body_finish(struct call *call);
enum call_result body_settle(struct call *call);
enum call_result body_abandon(struct call *call);
enum call_result body_open(struct call *call);
enum call_result body_set_state(struct call *call);
enum call_result body_outcomes(struct call *call);
enum call_result body_mark(struct call *call);
enum call_result body_rotate(struct call *call);
enum call_result body_expire(struct call *call);
enum call_result body_archived(struct call *call);
enum call_result body_bind(struct call *call);
enum call_result body_rename(struct call *call);
enum call_result body_slot_import(struct call *call);
enum call_result body_slot_drop(struct call *call);
/* These change nothing, and are not logged. */
enum call_result body_accounts(struct call *call);
enum call_result body_check(struct call *call);
enum call_result body_names(struct call *call);
enum call_result body_in_doubt(struct call *call);
enum call_result body_digest(struct call *call);
enum call_result body_account(struct call *call);
enum call_result body_info(struct call *call);
enum call_result body_slot_count(struct call *call);
enum call_result body_slot_export(struct call *call);

#endif
