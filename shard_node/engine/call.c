/* What the bodies of commands are given to work with: refusals, arguments, memory, notes, the ledger. See call.h. */
#include "call.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
/* Pieces lie apart, so that reading past one is found: at least 16 bytes a piece were asked for. */
#define ARENA_GAP 16u
#define ARENA_SIZE(size) (2u * (size))
#else
#define ARENA_GAP 0u
#define ARENA_SIZE(size) (size)
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)0)
#endif

#define ARENA_ALIGNMENT 16u
/* The arena grows by so many bytes at least, not to grow with every call. */
#define ARENA_STEP (64u * 1024u)
#define REFUSAL_BYTES 256u

enum notes_form { NOTES_EACH = 0, NOTES_SAME = 1 };

enum call_result call_refuse(struct call *call, const char *format, ...) {
    char text[REFUSAL_BYTES];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (call->replaying)
        RM_Log(call->ctx, "warning", "refused while applying the log: %s", text);
    else
        RM_ReplyWithError(call->ctx, text);
    return CALL_REFUSED;
}

const unsigned char *call_bytes(const struct call *call, int argument, size_t *size) {
    assert(argument < call->count);
    return (const unsigned char *)RM_StringPtrLen(call->arguments[argument], size);
}

bool call_number(const struct call *call, int argument, int64_t least, int64_t most, int64_t *number) {
    assert(argument < call->count);
    long long value;
    if (RM_StringToLongLong(call->arguments[argument], &value) != REDIS_OK) return false;
    if (value < least || value > most) return false;
    *number = value;
    return true;
}

bool arena_begin(struct call *call, size_t size) {
    struct arena *arena = &call->state->arena;
    size = ARENA_SIZE(size);
    arena->used = 0;
    if (arena->size < size) {
        size = (size + ARENA_STEP - 1u) / ARENA_STEP * ARENA_STEP;
        RM_Free(arena->base);
        arena->size = 0;
        arena->base = RM_TryAlloc(size);
        if (!arena->base) return false;
        arena->size = size;
    }
    if (arena->base) ASAN_POISON_MEMORY_REGION(arena->base, arena->size);
    return true;
}

void *arena_take(struct call *call, size_t size) {
    struct arena *arena = &call->state->arena;
    unsigned char *piece = arena->base + arena->used;
    arena->used += (size + ARENA_ALIGNMENT - 1u) / ARENA_ALIGNMENT * ARENA_ALIGNMENT + ARENA_GAP;
    assert(arena->used <= arena->size);
    ASAN_UNPOISON_MEMORY_REGION(piece, size);
    return piece;
}

bool call_reserve_notes(struct call *call, size_t size) {
    if (call->replaying) return true;
    unsigned char *notes = RM_TryAlloc(call->notes_size + size + 1u);
    if (!notes) return false;
    if (call->notes_used) memcpy(notes, call->notes, call->notes_used);
    RM_Free(call->notes);
    call->notes = notes;
    call->notes_size += size;
    return true;
}

void call_note(struct call *call, const void *bytes, size_t size) {
    assert(!call->replaying && call->notes_size - call->notes_used >= size);
    if (size) memcpy(call->notes + call->notes_used, bytes, size);
    call->notes_used += size;
}

void call_note_codes(struct call *call, const uint8_t *codes, uint32_t count) {
    bool same = count > 0;
    for (uint32_t i = 1; i < count && same; i++) same = codes[i] == codes[0];
    const uint8_t form = same ? NOTES_SAME : NOTES_EACH;
    call_note(call, &form, 1);
    call_note(call, codes, same ? 1u : count);
}

bool call_recall(struct call *call, void *bytes, size_t size) {
    assert(call->replaying);
    if (call->notes_size - call->notes_used < size) return false;
    if (size) memcpy(bytes, call->notes + call->notes_used, size);
    call->notes_used += size;
    return true;
}

bool call_recall_codes(struct call *call, uint8_t *codes, uint32_t count) {
    uint8_t form, code;
    if (!call_recall(call, &form, 1)) return false;
    if (form == NOTES_EACH) return call_recall(call, codes, count);
    if (form != NOTES_SAME || !call_recall(call, &code, 1)) return false;
    memset(codes, code, count);
    return true;
}

/* The digits that come next; false when there are none, or too many. */
static bool digits_read(const char **at, const char *end, uint64_t *number) {
    const char *first = *at;
    for (*number = 0; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        uint64_t digit = (uint64_t)(**at - '0');
        if (*number > (UINT64_MAX - digit) / 10u) return false;
        *number = *number * 10u + digit;
    }
    return *at > first;
}

bool stream_id_read(const char *text, size_t length, RedisModuleStreamID *id) {
    const char *end = text + length;
    if (!digits_read(&text, end, &id->ms) || text == end || *text++ != '-') return false;
    return digits_read(&text, end, &id->sequence) && text == end;
}

void call_append_frame(struct call *call, RedisModuleString **fields, long count, int64_t entries) {
    struct meta *meta = &call->state->meta;
    if (!call->replaying) {
        assert(!call->has_frame);
        uint64_t now_ms = (uint64_t)call_now_ms(call);
        bool later = now_ms > meta->frame_ms;
        call->frame_id.ms = later ? now_ms : meta->frame_ms;
        call->frame_id.sequence = later ? 0 : meta->frame_sequence + 1u;
        call->has_frame = true;
    }
    int added = RM_StreamAdd(call->ledger, 0, &call->frame_id, fields, count);
    /* Somebody else wrote to the stream: then this frame comes after what is there. */
    if (added != REDIS_OK && !call->replaying)
        added = RM_StreamAdd(call->ledger, REDIS_STREAM_AUTOID, &call->frame_id, fields, count);
    if (added != REDIS_OK || !call->has_frame) {
        RM_Log(call->ctx, "warning", "the ledger's stream does not take frame %llu-%llu",
               (unsigned long long)call->frame_id.ms, (unsigned long long)call->frame_id.sequence);
        abort();
    }
    meta->frame_ms = call->frame_id.ms;
    meta->frame_sequence = call->frame_id.sequence;
    meta->backlog += entries;
}
