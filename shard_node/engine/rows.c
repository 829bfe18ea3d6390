/* See rows.h. */
#include "rows.h"

#include <assert.h>
#include <string.h>

#include "accounts.h"

#define MAX_FIELDS 3

size_t rows_memory(uint32_t count, size_t details) {
    return count * (sizeof(struct entry_head) + MAX_ACCOUNT_ID_BYTES) + details;
}

void rows_begin(struct rows *rows, unsigned char *memory, size_t size) {
    *rows = (struct rows){.bytes = memory, .size = size};
}

static void put(struct rows *rows, const void *bytes, size_t size) {
    assert(rows->size - rows->used >= size);
    if (size) memcpy(rows->bytes + rows->used, bytes, size);
    rows->used += size;
}

void rows_add(struct rows *rows, const struct account *account, uint8_t kind, int64_t held_delta,
              const unsigned char *id, uint64_t fingerprint, const char *details, uint16_t details_length) {
    struct entry_head head = {
        .held_delta = held_delta,
        .balance = account->available + account->held,
        .version = account->version,
        .kind = kind,
        /* The leg that made the hold is 0: each entry of a transaction has a number of its own. */
        .leg = kind == KIND_EXPIRY,
        .leg_count = 1,
        .account_length = account->name_length,
        .details_length = details_length,
    };
    if (id) memcpy(head.id, id, sizeof head.id);
    memcpy(head.fingerprint, &fingerprint, sizeof head.fingerprint);
    memcpy(head.currency, account->currency, sizeof head.currency);
    put(rows, &head, sizeof head);
    put(rows, account_name(account), account->name_length);
    put(rows, details, details_length);
    rows->count++;
}

void rows_append(const struct rows *rows, struct call *call, uint8_t frame_kind) {
    if (!rows->count) return;
    const struct frame_field field = {"r0", rows->bytes, rows->used};
    fields_append(call, frame_kind, &field, 1, rows->count);
}

void fields_append(struct call *call, uint8_t frame_kind, const struct frame_field *fields, int count,
                   int64_t entries) {
    const struct frame_head head = {.version = LAYOUT_VERSION, .kind = frame_kind, .parts = 1};
    RedisModuleString *strings[2 * MAX_FIELDS];
    long filled = 0;
    assert(count < MAX_FIELDS);
    strings[filled++] = RM_CreateString(call->ctx, "h", 1);
    strings[filled++] = RM_CreateString(call->ctx, (const char *)&head, sizeof head);
    for (int i = 0; i < count; i++) {
        strings[filled++] = RM_CreateString(call->ctx, fields[i].name, strlen(fields[i].name));
        strings[filled++] = RM_CreateString(call->ctx, fields[i].bytes, fields[i].size);
    }
    call_append_frame(call, strings, filled / 2, entries);
    while (filled) RM_FreeString(call->ctx, strings[--filled]);
}
