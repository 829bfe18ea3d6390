/* What a slot holds, for whoever moves it: counted, read in chunks, taken in, dropped. Each costs what the slot holds.

   Who moves a slot sees to it that nothing of it is under way: an attempt finds its accounts by record number, so
   dropping a slot is refused while one has a leg there, or while a commit that is not settled decided in it. */
#include <stdlib.h>
#include <string.h>

#include "prepared.h"
#include "records.h"

#define MAX_EXPORT_BYTES (1024 * 1024)
#define MAX_CHUNK_BYTES (sizeof(struct chunk_head) + MAX_EXPORT_BYTES + MAX_RECORD_BYTES)
#define MAX_DROPPED 100000

static bool read_slot(const struct call *call, uint16_t *slot) {
    int64_t number;
    if (!call_number(call, 0, 0, SLOTS - 1u, &number)) return false;
    *slot = (uint16_t)number;
    return true;
}

static enum call_result refuse_slot(struct call *call) {
    return call_refuse(call, "ERR malformed slot: 0 to %u", SLOTS - 1u);
}

/* ------------------------------------------------------------------ count */

/* The sum of many balances may need more than 64 bits. */
__extension__ typedef __int128 wide;

/* available and held of all accounts of one currency. */
struct total {
    char currency[3];
    wide minor;
};

/* In decimal digits, most significant first; returns where they begin. */
static char *decimal(wide number, char *end) {
    bool negative = number < 0;
    *--end = 0;
    do {
        int digit = (int)(number % 10);
        *--end = (char)('0' + (digit < 0 ? -digit : digit));
        number /= 10;
    } while (number);
    if (negative) *--end = '-';
    return end;
}

static int by_currency(const void *a, const void *b) {
    return memcmp(((const struct total *)a)->currency, ((const struct total *)b)->currency, 3);
}

static void add_total(struct total *totals, uint32_t *count, const struct account *account) {
    uint32_t i = 0;
    while (i < *count && memcmp(totals[i].currency, account->currency, 3)) i++;
    if (i == *count) {
        totals[(*count)++] = (struct total){0};
        memcpy(totals[i].currency, account->currency, 3);
    }
    totals[i].minor += account->available;
    totals[i].minor += account->held;
}

/* More currencies than this in one slot are not summed up: the digest covers them. */
#define MAX_TOTALS 256u

enum call_result body_slot_count(struct call *call) {
    uint16_t slot;
    uint32_t counts[SLOT_PARTS] = {0}, total_count = 0;
    struct total totals[MAX_TOTALS + 1u];
    if (!read_slot(call, &slot)) return refuse_slot(call);
    for (enum slot_part part = 0; part < SLOT_PARTS; part++)
        for (link at = part_first(call->state, part, slot); at; at = part_next(call->state, part, at)) {
            counts[part] += !part_repeats(call->state, part, at);
            if (part == PART_ACCOUNTS && total_count <= MAX_TOTALS)
                add_total(totals, &total_count, account_at(call->state, at - 1u));
        }
    if (total_count > MAX_TOTALS) total_count = MAX_TOTALS;
    qsort(totals, total_count, sizeof *totals, by_currency);
    RM_ReplyWithArray(call->ctx, 5);
    RM_ReplyWithLongLong(call->ctx, counts[PART_ACCOUNTS]);
    RM_ReplyWithLongLong(call->ctx, (long long)counts[PART_OUTCOMES_YOUNGER] + counts[PART_OUTCOMES_OLDER]);
    RM_ReplyWithLongLong(call->ctx, counts[PART_HOLDS]);
    RM_ReplyWithLongLong(call->ctx, counts[PART_REFUNDS]);
    RM_ReplyWithArray(call->ctx, 2 * (long)total_count);
    for (uint32_t i = 0; i < total_count; i++) {
        char text[48], *end = text + sizeof text, *digits = decimal(totals[i].minor, end);
        RM_ReplyWithStringBuffer(call->ctx, totals[i].currency, 3);
        RM_ReplyWithStringBuffer(call->ctx, digits, (size_t)(end - digits) - 1u);
    }
    return CALL_DONE;
}

/* ------------------------------------------------------------------ export */

/* Where to go on: a part, and the last record that was read, by its name or by its number and id. A record that is gone
   sends the reader back to the beginning of its part: what was read twice is taken in twice, which does no harm. */
struct cursor {
    uint8_t part;
    uint8_t name_length; /* of an account */
    uint32_t number;     /* of any other record */
    unsigned char key[MAX_ACCOUNT_ID_BYTES];
};

static void key_of(const struct state *state, enum slot_part part, link at, struct cursor *cursor) {
    *cursor = (struct cursor){.part = (uint8_t)part, .number = at - 1u};
    const void *record = table_record(part_table(state, part), at - 1u);
    const unsigned char *id = NULL;
    switch (part) {
        case PART_ACCOUNTS:
            cursor->name_length = ((const struct account *)record)->name_length;
            memcpy(cursor->key, account_name(record), cursor->name_length);
            return;
        case PART_PURCHASES_YOUNGER:
        case PART_PURCHASES_OLDER: id = ((const struct purchase *)record)->id; break;
        case PART_OUTCOMES_YOUNGER:
        case PART_OUTCOMES_OLDER: id = ((const struct outcome *)record)->id; break;
        case PART_HOLDS: id = ((const struct hold *)record)->id; break;
        default: id = ((const struct refund *)record)->id; break;
    }
    memcpy(cursor->key, id, ID_BYTES);
}

/* Whether the record with that number is found by that key: then it is there, and no other one in its place. */
static bool is_there(const struct state *state, const struct cursor *cursor, uint16_t slot) {
    const struct table *table = part_table(state, cursor->part);
    uint64_t hash = scoped_hash(state, cursor->key, slot);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(table_segment(table, hash), hash, &place)) != NO_RECORD) {
        struct cursor found;
        if (number != cursor->number) continue;
        key_of(state, cursor->part, number + 1u, &found);
        return !memcmp(found.key, cursor->key, ID_BYTES);
    }
    return false;
}

static link go_on(const struct state *state, const struct cursor *cursor, uint16_t slot) {
    link first = part_first(state, cursor->part, slot);
    if (cursor->part == PART_ACCOUNTS) {
        const char *name = (const char *)cursor->key;
        uint64_t hash = account_hash(state, name, cursor->name_length);
        uint32_t number = account_find(state, name, cursor->name_length, hash);
        bool there = number != NO_RECORD && account_at(state, number)->slot == slot;
        return there ? account_at(state, number)->next : first;
    }
    return is_there(state, cursor, slot) ? part_next(state, cursor->part, cursor->number + 1u) : first;
}

static bool read_cursor(const struct call *call, int argument, struct cursor *cursor) {
    size_t size;
    const unsigned char *bytes = call_bytes(call, argument, &size);
    *cursor = (struct cursor){0};
    if (!size) return true;
    if (size != sizeof *cursor) return false;
    memcpy(cursor, bytes, size);
    return cursor->part < SLOT_PARTS && cursor->name_length <= MAX_ACCOUNT_ID_BYTES;
}

/* Fills a chunk. Holds begin one of their own: when they are taken in, their accounts must be there already. */
struct filling {
    unsigned char *bytes;
    size_t used, limit;
    uint32_t records;
};

/* True when the slot's end was reached; else *cursor is where it stopped. */
static bool fill(const struct state *state, uint16_t slot, bool begun, struct cursor *cursor, struct filling *to) {
    for (enum slot_part part = cursor->part; part < SLOT_PARTS; part++) {
        link at = begun && part == cursor->part ? go_on(state, cursor, slot) : part_first(state, part, slot);
        for (; at; at = part_next(state, part, at)) {
            bool is_own = part == PART_HOLDS && to->bytes[sizeof(struct chunk_head)] != RECORD_HOLD;
            if (part_repeats(state, part, at)) continue;
            if (to->records && (to->used >= to->limit || is_own)) return false;
            to->used += record_write(state, part, at, FOR_MOVE, to->bytes + to->used);
            to->records++;
            key_of(state, part, at, cursor);
        }
    }
    return true;
}

enum call_result body_slot_export(struct call *call) {
    uint16_t slot;
    int64_t limit;
    struct cursor cursor;
    size_t given;
    if (!read_slot(call, &slot)) return refuse_slot(call);
    if (!read_cursor(call, 1, &cursor)) return call_refuse(call, "ERR malformed cursor");
    if (!call_number(call, 2, 1, MAX_EXPORT_BYTES, &limit))
        return call_refuse(call, "ERR malformed bytes: 1 to %d", MAX_EXPORT_BYTES);
    call_bytes(call, 1, &given);
    size_t room = sizeof(struct chunk_head) + (size_t)limit + MAX_RECORD_BYTES;
    if (!arena_begin(call, room + ARENA_SLACK)) return call_refuse(call, "OOM no memory for a chunk");
    struct filling filling = {
        .bytes = arena_take(call, room), .used = sizeof(struct chunk_head), .limit = (size_t)limit};
    bool ended = fill(call->state, slot, given, &cursor, &filling);
    struct chunk_head head = {.version = LAYOUT_VERSION, .slot = slot, .records = filling.records};
    memcpy(filling.bytes, &head, sizeof head);
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithStringBuffer(call->ctx, ended ? "" : (const char *)&cursor, ended ? 0u : sizeof cursor);
    RM_ReplyWithStringBuffer(call->ctx, (const char *)filling.bytes, filling.used);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ import */

struct import {
    struct record *records;
    uint64_t *hashes;
    uint32_t count;
};

static const char *read_chunk(struct call *call, uint16_t slot, struct import *import) {
    size_t size;
    const unsigned char *bytes = call_bytes(call, 1, &size);
    struct reader reader = {.at = bytes, .end = bytes + size};
    struct chunk_head head;
    if (size > MAX_CHUNK_BYTES || !reader_take(&reader, &head, sizeof head)) return "its length";
    if (head.version != LAYOUT_VERSION) return "another version";
    if (head.slot != slot) return "another slot";
    /* A record has more than a byte, so the memory is bounded by the chunk. */
    if (head.records > size) return "its number of records";
    size_t memory = head.records * (sizeof *import->records + sizeof *import->hashes);
    if (!arena_begin(call, memory + 2u * ARENA_SLACK)) return "no memory to read it";
    import->records = arena_take(call, head.records * sizeof *import->records);
    import->hashes = arena_take(call, head.records * sizeof *import->hashes);
    for (import->count = 0; import->count < head.records; import->count++) {
        struct record *record = &import->records[import->count];
        if (!record_read(call->state, &reader, WHOLE_RECORD, record)) return "a record";
        if (record->slot != slot) return "a record of another slot";
    }
    return reader.at == reader.end ? NULL : "more than its records";
}

/* Memory for all of them, before the first is taken in. */
static bool import_memory(struct state *state, const struct import *import) {
    const struct table *seen[SLOT_PARTS];
    int seen_count = 0;
    for (uint32_t i = 0; i < import->count; i++) {
        const struct table *table = record_table(state, &import->records[i]);
        uint32_t count = 0;
        int place = 0;
        if (!record_memory(&import->records[i])) return false;
        while (place < seen_count && seen[place] != table) place++;
        if (place < seen_count) continue;
        seen[seen_count++] = table;
        for (uint32_t j = i; j < import->count; j++)
            if (record_table(state, &import->records[j]) == table) import->hashes[count++] = import->records[j].hash;
        if (!record_reserve(state, &import->records[i], import->hashes, count)) return false;
    }
    return true;
}

enum call_result body_slot_import(struct call *call) {
    uint16_t slot;
    struct import import = {0};
    if (!read_slot(call, &slot)) return refuse_slot(call);
    const char *wrong = read_chunk(call, slot, &import);
    for (uint32_t i = 0; !wrong && i < import.count; i++) wrong = record_refusal(call->state, &import.records[i]);
    if (wrong) return call_refuse(call, "ERR malformed chunk: %s", wrong);
    bool enough = import_memory(call->state, &import);
    for (uint32_t i = 0; i < import.count; i++) {
        if (enough)
            record_add(call->state, &import.records[i], FOR_MOVE);
        else
            record_free(&import.records[i]);
    }
    if (!enough) return call_refuse(call, "OOM no memory for a chunk");
    if (!call->replaying) RM_ReplyWithLongLong(call->ctx, import.count);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ drop */

static bool has_leg_in(const struct state *state, const struct attempt *attempt, uint16_t slot) {
    struct prepared_walk legs;
    struct prepared_leg leg;
    for (prepared_begin(&legs, attempt); prepared_next(&legs, &leg);)
        if (account_at(state, leg.account)->slot == slot) return true;
    return false;
}

static bool decided_in(const struct commit *commit, uint16_t slot) {
    struct bundle bundle;
    bundle_recall(&bundle, commit->bundle);
    for (uint32_t row = 0; row < bundle.rows; row++)
        if (commit->codes[row] == CODE_COMMITTED && bundle_slot(&bundle, row) == slot) return true;
    return false;
}

/* NULL, or what is under way in the slot. */
static const char *under_way(const struct state *state, uint16_t slot) {
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;)
        if (has_leg_in(state, attempt_at(state, number), slot)) return "an attempt is prepared in it";
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;)
        if (decided_in(commit_at(state, number), slot)) return "a commit of it is not settled";
    return NULL;
}

/* Holds first, for they name accounts. */
static bool drop_first(struct state *state, uint16_t slot) {
    link at;
    for (enum slot_part part = SLOT_PARTS; part-- > 0;) {
        if (!(at = part_first(state, part, slot))) continue;
        switch (part) {
            case PART_ACCOUNTS: account_remove_first(state, slot); break;
            case PART_HOLDS: hold_remove(state, at - 1u); break;
            case PART_REFUNDS: {
                const struct refund *refund = table_record(&state->refunds, at - 1u);
                refund_change(state, refund->id, slot, -refund->sum);
                break;
            }
            default: outcome_part_remove_first(state, part, slot);
        }
        return true;
    }
    return false;
}

enum call_result body_slot_drop(struct call *call) {
    uint16_t slot;
    int64_t limit;
    uint32_t count = 0;
    if (!read_slot(call, &slot)) return refuse_slot(call);
    if (!call_number(call, 1, 1, MAX_DROPPED, &limit))
        return call_refuse(call, "ERR malformed limit: 1 to %d", MAX_DROPPED);
    const char *busy = call->replaying ? NULL : under_way(call->state, slot);
    if (busy) return call_refuse(call, "ERR slot %u cannot be dropped: %s", slot, busy);
    while (count < (uint32_t)limit && drop_first(call->state, slot)) count++;
    if (!call->replaying) RM_ReplyWithLongLong(call->ctx, count);
    return count ? CALL_DONE : CALL_IDLE;
}
