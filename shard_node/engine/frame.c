/* See frame.h. */
#include "frame.h"

#include <assert.h>
#include <stdio.h>

#define FIELDS_A_PART 4u

size_t frame_memory(uint32_t bundles) {
    return 2u * (1u + FIELDS_A_PART * bundles) * sizeof(RedisModuleString *) + ARENA_SLACK;
}

void frame_begin(struct call *call, struct frame *frame, enum frame_kind kind, uint32_t bundles) {
    *frame = (struct frame){.call = call, .kind = (uint8_t)kind};
    frame->fields = arena_take(call, 2u * (1u + FIELDS_A_PART * bundles) * sizeof *frame->fields);
}

static RedisModuleString *text(const void *bytes, size_t size) { return RM_CreateString(NULL, bytes, size); }

static void put_field(struct frame *frame, uint32_t field, char letter, RedisModuleString *value) {
    char name[16];
    int length = snprintf(name, sizeof name, "%c%u", letter, frame->parts);
    RedisModuleString **at = frame->fields + 2u * (1u + FIELDS_A_PART * frame->parts + field);
    at[0] = text(name, (size_t)length);
    at[1] = value;
}

/* Moves the numbers of legs that were carried out to the front of their column. */
static void pack(const struct work *work, int64_t *column) {
    const struct bundle *bundle = &work->bundle;
    uint32_t count = 0;
    if (bundle->plain) {
        for (uint32_t own = 0; own < work->leg_count; own++)
            if (work->decided[bundle_value(bundle, own)] == CODE_COMMITTED) column[count++] = column[own];
    } else {
        for (uint32_t row = 0; row < bundle->rows; row++)
            for (uint32_t own = work->first_own[row]; own < work->first_own[row + 1u]; own++)
                if (work->decided[row] == CODE_COMMITTED) column[count++] = column[own];
    }
    assert(count == work->applied_legs);
}

/* The owner of the legs, then their balances, versions and, unless the bundle is plain, held deltas. */
static RedisModuleString *changes_of(struct work *work) {
    uint32_t count = work->applied_legs, columns = work->bundle.plain ? 2u : 3u;
    size_t size = count * sizeof(int64_t);
    if (count < work->leg_count) {
        pack(work, work->balances);
        pack(work, work->versions);
        if (!work->bundle.plain) pack(work, work->held_deltas);
        /* Downwards: the columns follow each other. */
        memmove(work->balances + count, work->versions, size);
        memmove(work->balances + 2u * count, work->held_deltas, size);
    }
    /* The byte before the columns is free: see work_take_balances. */
    unsigned char *changes = (unsigned char *)work->balances - 1;
    *changes = work->owner;
    return text(changes, 1u + columns * size);
}

void frame_add(struct frame *frame, struct work *work) {
    if (!work->applied_legs) return;
    uint32_t rows = work->bundle.rows;
    bool same = !memcmp(work->decided, work->decided + 1, rows - 1u);
    put_field(frame, 0, 'b', RM_HoldString(NULL, work->argument));
    put_field(frame, 1, 'c', text(work->decided, same ? 1u : rows));
    put_field(frame, 2, 'f', text(work->fingerprints, rows * sizeof *work->fingerprints));
    put_field(frame, 3, 'x', changes_of(work));
    frame->parts++;
    frame->entries += work->applied_legs;
}

void frame_end(struct frame *frame) {
    if (!frame->parts) return;
    struct frame_head head = {.version = LAYOUT_VERSION, .kind = frame->kind, .parts = (uint16_t)frame->parts};
    frame->fields[0] = text("h", 1);
    frame->fields[1] = text(&head, sizeof head);
    uint32_t fields = 1u + FIELDS_A_PART * frame->parts;
    call_append_frame(frame->call, frame->fields, fields, frame->entries);
    for (uint32_t i = 0; i < 2u * fields; i++) RM_FreeString(NULL, frame->fields[i]);
}
