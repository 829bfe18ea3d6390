/* Opening, freezing and reading accounts, and listing their names.

   Invariant: an account is opened once; the same terms again are no error, other terms under its name are. */
#include <stdlib.h>
#include <string.h>

#include "accounts.h"
#include "lists.h"
#include "prepared.h"
#include "rows.h"

/* Names that one call of `names` reads, about: a millisecond of the shard's time. */
#define NAMES_A_CALL 4096u

/* ------------------------------------------------------------------ records, as answers have them */

static struct account_record record_of(const struct account *account) {
    const struct account_extra *extra = account_extra(account);
    struct account_record record = {
        .available = account->available,
        .held = account->held,
        .version = account->version,
        .minimum = account_minimum(account),
        .maximum_balance = extra ? extra->maximum_balance : 0,
        .maximum_transfer = extra ? extra->maximum_transfer : 0,
        .slot = account->slot,
        .state = account->state & ACCOUNT_STATE_MASK,
    };
    memcpy(record.currency, account->currency, sizeof record.currency);
    return record;
}

/* Of all names of a list, into `records`; numbers[i] is NO_RECORD for an account that is not there. */
static void fill_records(const struct state *state, const uint32_t *numbers, uint32_t count,
                         struct account_record *records) {
    for (uint32_t i = 0; i < count; i++) {
        if (numbers[i] == NO_RECORD)
            records[i] = (struct account_record){.state = NO_ACCOUNT};
        else
            records[i] = record_of(account_at(state, numbers[i]));
    }
}

static void find_all(const struct state *state, const struct list *list, uint64_t *hashes, uint32_t *numbers) {
    const char *name = (const char *)list->names;
    for (uint32_t i = 0; i < list->count; name += list->lengths[i++]) {
        hashes[i] = account_hash(state, name, list->lengths[i]);
        numbers[i] = account_find(state, name, list->lengths[i], hashes[i]);
    }
}

static void reply_codes_and_records(struct call *call, const uint8_t *codes, const struct account_record *records,
                                    uint32_t count) {
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithStringBuffer(call->ctx, (const char *)codes, count);
    RM_ReplyWithStringBuffer(call->ctx, (const char *)records, count * sizeof *records);
}

/* ------------------------------------------------------------------ open */

/* Columns of `open`. */
#define OPEN_BYTES (3u * 8u + 2u + 3u)

struct terms {
    int64_t minimum, maximum_balance, maximum_transfer;
    uint16_t slot;
    char currency[3];
};

static struct terms terms_at(const struct list *list, uint32_t i) {
    const size_t n = list->count;
    const unsigned char *columns = list->columns;
    struct terms terms;
    memcpy(&terms.minimum, columns + 8u * i, 8);
    memcpy(&terms.maximum_balance, columns + 8u * (n + i), 8);
    memcpy(&terms.maximum_transfer, columns + 8u * (2u * n + i), 8);
    memcpy(&terms.slot, columns + 24u * n + 2u * i, 2);
    memcpy(terms.currency, columns + 26u * n + 3u * i, 3);
    return terms;
}

static const char *check_terms(const struct list *list, bool replaying) {
    const unsigned char *name = list->names;
    for (uint32_t i = 0; i < list->count; name += list->lengths[i++]) {
        struct terms terms = terms_at(list, i);
        if (terms.minimum < -MAX_MINOR || terms.minimum > 0) return "a minimum balance";
        if (terms.maximum_balance < 0 || terms.maximum_balance > MAX_MINOR) return "a maximum balance";
        if (terms.maximum_transfer < 0 || terms.maximum_transfer > MAX_MINOR) return "a maximum transfer";
        if (terms.slot >= SLOTS) return "a slot";
        for (int letter = 0; letter < 3; letter++)
            if (terms.currency[letter] < 'A' || terms.currency[letter] > 'Z') return "a currency";
        if (is_system_name((const char *)name)) return "a system account, which begins with its first use";
        if (!replaying && !is_text((const char *)name, list->lengths[i])) return "a name that is no text";
    }
    return NULL;
}

static bool has_terms(const struct account *account, const struct terms *terms) {
    const struct account_record record = record_of(account);
    return record.minimum == terms->minimum && record.maximum_balance == terms->maximum_balance &&
           record.maximum_transfer == terms->maximum_transfer &&
           !memcmp(record.currency, terms->currency, sizeof terms->currency);
}

/* What was decided of each account: made, there already with these terms, or with others. */
enum opened { OPENED_MADE = 1, OPENED_SAME = 2, OPENED_OTHER = 3 };

struct opening {
    struct list list;
    uint64_t *hashes;
    uint32_t *numbers;
    struct account_extra **extras; /* memory for those that need it */
    uint8_t *decided, *codes;
    struct account_record *records;
};

static bool opening_memory(struct call *call, struct opening *opening) {
    size_t n = opening->list.count;
    size_t bytes = n * (sizeof *opening->hashes + sizeof *opening->numbers + sizeof *opening->extras + 2u +
                        sizeof *opening->records);
    if (!arena_begin(call, bytes + 6u * ARENA_SLACK) || !call_reserve_notes(call, n + 1u)) return false;
    opening->hashes = arena_take(call, n * sizeof *opening->hashes);
    opening->numbers = arena_take(call, n * sizeof *opening->numbers);
    opening->extras = arena_take(call, n * sizeof *opening->extras);
    opening->decided = arena_take(call, n);
    opening->codes = arena_take(call, n);
    opening->records = arena_take(call, n * sizeof *opening->records);
    memset(opening->extras, 0, n * sizeof *opening->extras);
    find_all(call->state, &opening->list, opening->hashes, opening->numbers);
    if (!table_reserve(&call->state->accounts, opening->hashes, (uint32_t)n)) return false;
    for (uint32_t i = 0; i < n; i++) {
        struct terms terms = terms_at(&opening->list, i);
        if (opening->numbers[i] != NO_RECORD ||
            !account_needs_extra(opening->list.lengths[i], terms.minimum, terms.maximum_balance,
                                 terms.maximum_transfer))
            continue;
        opening->extras[i] = account_extra_new(opening->list.lengths[i], terms.minimum, terms.maximum_balance,
                                               terms.maximum_transfer);
        if (!opening->extras[i]) return false;
    }
    return true;
}

static void free_unused_extras(const struct opening *opening) {
    if (!opening->extras) return;
    for (uint32_t i = 0; i < opening->list.count; i++) RM_Free(opening->extras[i]);
}

/* The frame says which accounts were made. */
static void append_opened(struct call *call, const struct opening *opening, uint32_t made) {
    uint32_t n = opening->list.count;
    size_t size;
    const unsigned char *list = call_bytes(call, 0, &size);
    for (uint32_t i = 0; i < n; i++) opening->codes[i] = opening->decided[i] == OPENED_MADE ? CODE_COMMITTED : 0;
    const struct frame_field fields[] = {{"o0", list, size}, {"c0", opening->codes, made == n ? 1u : n}};
    fields_append(call, FRAME_OPEN, fields, 2, made);
}

enum call_result body_open(struct call *call) {
    struct opening opening = {0};
    const char *wrong = list_read(call, 0, OPEN_BYTES, &opening.list);
    if (!wrong) wrong = check_terms(&opening.list, call->replaying);
    if (wrong) return call_refuse(call, "ERR malformed accounts: %s", wrong);
    if (!opening_memory(call, &opening)) {
        free_unused_extras(&opening);
        return call_refuse(call, "OOM no memory for %u accounts", opening.list.count);
    }
    uint32_t n = opening.list.count, made = 0;
    if (call->replaying && !call_recall_codes(call, opening.decided, n))
        return call_refuse(call, "ERR malformed decisions");
    const char *name = (const char *)opening.list.names;
    for (uint32_t i = 0; i < n; name += opening.list.lengths[i++]) {
        struct terms terms = terms_at(&opening.list, i);
        uint32_t number = account_find(call->state, name, opening.list.lengths[i], opening.hashes[i]);
        if (!call->replaying) {
            opening.decided[i] = OPENED_MADE;
            if (number != NO_RECORD)
                opening.decided[i] = has_terms(account_at(call->state, number), &terms) ? OPENED_SAME : OPENED_OTHER;
        }
        if (opening.decided[i] == OPENED_MADE) {
            if (number != NO_RECORD) return call_refuse(call, "ERR an account is opened twice");
            number = account_add(call->state, name, opening.list.lengths[i], opening.hashes[i], terms.slot,
                                 terms.currency, opening.extras[i]);
            opening.extras[i] = NULL;
            made++;
        }
        opening.numbers[i] = number;
    }
    free_unused_extras(&opening);
    if (made) append_opened(call, &opening, made);
    if (call->replaying) return CALL_DONE;
    call_note_codes(call, opening.decided, n);
    for (uint32_t i = 0; i < n; i++)
        opening.codes[i] = opening.decided[i] == OPENED_OTHER ? CODE_ACCOUNT_EXISTS : CODE_COMMITTED;
    fill_records(call->state, opening.numbers, n, opening.records);
    reply_codes_and_records(call, opening.codes, opening.records, n);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ set_state */

struct changing {
    struct list list;
    uint64_t *hashes;
    uint32_t *numbers;
    uint8_t *codes;
    struct account_record *records;
    struct rows rows;
    uint32_t begun; /* system accounts that begin with being named here */
};

/* False without memory. */
static bool begin_system_accounts(struct state *state, struct changing *changing) {
    const char *name = (const char *)changing->list.names;
    for (uint32_t i = 0; i < changing->list.count; name += changing->list.lengths[i++]) {
        uint8_t length = changing->list.lengths[i];
        uint64_t hash = changing->hashes[i];
        if (changing->numbers[i] != NO_RECORD || !is_system_name(name)) continue;
        /* It may have begun with an earlier place of the list. */
        changing->numbers[i] = account_find(state, name, length, hash);
        if (changing->numbers[i] != NO_RECORD) continue;
        changing->numbers[i] = account_begin_system(state, name, length, hash);
        if (changing->numbers[i] == NO_RECORD) return false;
        changing->begun++;
    }
    return true;
}

static bool changing_memory(struct call *call, struct changing *changing) {
    size_t n = changing->list.count, rows = rows_memory(changing->list.count, 0);
    size_t bytes =
        n * (sizeof *changing->hashes + sizeof *changing->numbers + 1u + sizeof *changing->records) + rows;
    if (!arena_begin(call, bytes + 5u * ARENA_SLACK) || !call_reserve_notes(call, n + 1u)) return false;
    changing->hashes = arena_take(call, n * sizeof *changing->hashes);
    changing->numbers = arena_take(call, n * sizeof *changing->numbers);
    changing->codes = arena_take(call, n);
    changing->records = arena_take(call, n * sizeof *changing->records);
    rows_begin(&changing->rows, arena_take(call, rows), rows);
    find_all(call->state, &changing->list, changing->hashes, changing->numbers);
    return begin_system_accounts(call->state, changing);
}

static uint8_t state_after(uint8_t change) {
    return change == KIND_CLOSE ? ACCOUNT_CLOSED : change == KIND_FREEZE ? ACCOUNT_FROZEN : ACCOUNT_OPEN;
}

/* COMMITTED, also where the account is so already, or why not. */
static uint8_t judge_change(const struct account *account, uint8_t change) {
    bool closed = (account->state & ACCOUNT_STATE_MASK) == ACCOUNT_CLOSED;
    if (change != KIND_CLOSE) return closed ? CODE_ACCOUNT_CLOSED : CODE_COMMITTED;
    if (closed) return CODE_COMMITTED;
    if (account->available || account->held) return CODE_ACCOUNT_NOT_EMPTY;
    return account->coming ? CODE_ACCOUNT_IN_USE : CODE_COMMITTED;
}

static void apply_change(struct changing *changing, struct account *account, uint8_t change) {
    uint8_t after = state_after(change);
    if ((account->state & ACCOUNT_STATE_MASK) == after) return;
    account->state = (uint8_t)((account->state & ~ACCOUNT_STATE_MASK) | after);
    account->version++;
    rows_add(&changing->rows, account, change, 0, NULL, 0, NULL, 0);
}

static const char *check_changes(const struct list *list, bool replaying) {
    const char *name = (const char *)list->names;
    for (uint32_t i = 0; i < list->count; name += list->lengths[i++]) {
        if (list->columns[i] < KIND_FREEZE || list->columns[i] > KIND_CLOSE) return "a change";
        if (!replaying && is_system_name(name) && !is_world_name(name, list->lengths[i]))
            return "a system account that there is not";
    }
    return NULL;
}

enum call_result body_set_state(struct call *call) {
    struct changing changing = {0};
    int64_t dry;
    if (!call_number(call, 0, 0, 1, &dry)) return call_refuse(call, "ERR malformed dry: 0 or 1");
    const char *wrong = list_read(call, 1, 1u, &changing.list);
    if (!wrong) wrong = check_changes(&changing.list, call->replaying);
    if (wrong) return call_refuse(call, "ERR malformed changes: %s", wrong);
    if (!changing_memory(call, &changing)) {
        accounts_end_unused(call->state, changing.begun);
        return call_refuse(call, "OOM no memory for %u changes", changing.list.count);
    }
    uint32_t n = changing.list.count;
    if (call->replaying && !call_recall_codes(call, changing.codes, n))
        return call_refuse(call, "ERR malformed decisions");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = changing.numbers[i];
        struct account *account = number == NO_RECORD ? NULL : account_at(call->state, number);
        uint8_t change = changing.list.columns[i];
        if (!call->replaying)
            changing.codes[i] = account ? judge_change(account, change) : CODE_ACCOUNT_NOT_FOUND;
        if (changing.codes[i] != CODE_COMMITTED || dry) continue;
        if (!account) return call_refuse(call, "ERR a change of no account");
        apply_change(&changing, account, change);
    }
    rows_append(&changing.rows, call, FRAME_STATE);
    accounts_end_unused(call->state, changing.begun);
    if (call->replaying) return CALL_DONE;
    call_note_codes(call, changing.codes, n);
    for (uint32_t i = 0; dry && i < n; i++)
        if (changing.codes[i] == CODE_COMMITTED) changing.codes[i] = CODE_VALID;
    find_all(call->state, &changing.list, changing.hashes, changing.numbers);
    fill_records(call->state, changing.numbers, n, changing.records);
    reply_codes_and_records(call, changing.codes, changing.records, n);
    return dry ? CALL_IDLE : CALL_DONE;
}

/* ------------------------------------------------------------------ accounts */

/* What prepared debits hold back of an account: the ledger does not know of that yet. */
struct reserved {
    uint32_t account;
    int64_t sum;
};

static int by_account(const void *a, const void *b) {
    uint32_t one = ((const struct reserved *)a)->account, other = ((const struct reserved *)b)->account;
    return (one > other) - (one < other);
}

/* Of equal ones, when a name was asked for twice, always the same. */
static struct reserved *reserved_of(const struct reserved *sorted, uint32_t count, uint32_t account) {
    const struct reserved wanted = {.account = account};
    return bsearch(&wanted, sorted, count, sizeof *sorted, by_account);
}

static void add_reserved(const struct state *state, const uint32_t *numbers, uint32_t count, struct reserved *sums,
                         struct account_record *records) {
    uint32_t number;
    for (uint32_t i = 0; i < count; i++) sums[i] = (struct reserved){.account = numbers[i]};
    qsort(sums, count, sizeof *sums, by_account);
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;) {
        const struct attempt *attempt = attempt_at(state, number);
        struct prepared_walk legs;
        struct prepared_leg leg;
        if (!attempt->reserving) continue;
        for (prepared_begin(&legs, attempt); prepared_next(&legs, &leg);) {
            if (leg.effect != EFFECT_DEBIT && leg.effect != EFFECT_HOLD) continue;
            struct reserved *found = reserved_of(sums, count, leg.account);
            if (found) found->sum += leg.amount;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (numbers[i] != NO_RECORD) records[i].reserved = reserved_of(sums, count, numbers[i])->sum;
}

enum call_result body_accounts(struct call *call) {
    struct list list;
    const char *wrong = list_read(call, 0, 0, &list);
    if (wrong) return call_refuse(call, "ERR malformed names: %s", wrong);
    size_t n = list.count;
    size_t bytes = n * (sizeof(uint64_t) + sizeof(uint32_t) + sizeof(struct account_record) + sizeof(struct reserved));
    if (!arena_begin(call, bytes + 4u * ARENA_SLACK)) return call_refuse(call, "OOM no memory for %u names", list.count);
    uint64_t *hashes = arena_take(call, n * sizeof *hashes);
    uint32_t *numbers = arena_take(call, n * sizeof *numbers);
    struct account_record *records = arena_take(call, n * sizeof *records);
    struct reserved *sums = arena_take(call, n * sizeof *sums);
    find_all(call->state, &list, hashes, numbers);
    fill_records(call->state, numbers, list.count, records);
    if (call->state->reserving_attempts) add_reserved(call->state, numbers, list.count, sums, records);
    RM_ReplyWithStringBuffer(call->ctx, (const char *)records, n * sizeof *records);
    return CALL_DONE;
}

/* ------------------------------------------------------------------ names */

/* Where to go on in a slot: behind the account that the cursor names, or at the beginning when it is no longer there. */
static link after_cursor(const struct state *state, uint16_t slot, const char *cursor, size_t length) {
    link first = state->account_heads[slot_place(slot)];
    if (!length || length > MAX_ACCOUNT_ID_BYTES) return first;
    uint32_t size = (uint32_t)length;
    uint32_t number = account_find(state, cursor, size, account_hash(state, cursor, size));
    if (number == NO_RECORD || account_at(state, number)->slot != slot) return first;
    return account_at(state, number)->next;
}

/* Each name as a byte with its length and the name; *next is where it stopped, 0 for the end. */
static uint32_t put_names(const struct state *state, link from, uint32_t limit, unsigned char *to, size_t *used,
                          link *next, const struct account **last) {
    uint32_t count = 0;
    for (; from && count < limit; count++) {
        *last = account_at(state, from - 1u);
        to[(*used)++] = (*last)->name_length;
        memcpy(to + *used, account_name(*last), (*last)->name_length);
        *used += (*last)->name_length;
        from = (*last)->next;
    }
    *next = from;
    return count;
}

enum call_result body_names(struct call *call) {
    size_t cursor_length, size;
    const char *cursor = (const char *)call_bytes(call, 0, &cursor_length);
    const unsigned char *slots = call_bytes(call, 1, &size);
    size_t count = size / sizeof(uint16_t);
    if (!count || size % sizeof(uint16_t) || count > SLOT_PLACES) return call_refuse(call, "ERR malformed slots: length");
    for (size_t i = 0; i < count; i++)
        if (bundle_u16(slots, (uint32_t)i) >= SLOTS && bundle_u16(slots, (uint32_t)i) != SYSTEM_SLOT)
            return call_refuse(call, "ERR malformed slots: a slot");
    const size_t room = NAMES_A_CALL * (1u + MAX_ACCOUNT_ID_BYTES);
    size_t *ends;
    if (!arena_begin(call, room + count * sizeof *ends + 2u * ARENA_SLACK))
        return call_refuse(call, "OOM no memory for names");
    unsigned char *names = arena_take(call, room);
    ends = arena_take(call, count * sizeof *ends);
    size_t used = 0;
    uint32_t left = NAMES_A_CALL;
    link next = 0;
    long read = 0;
    const struct account *last = NULL;
    for (; (size_t)read < count && left && !next; ends[read++] = used) {
        uint16_t slot = bundle_u16(slots, (uint32_t)read);
        link from = after_cursor(call->state, slot, cursor, read ? 0 : cursor_length);
        left -= put_names(call->state, from, left, names, &used, &next, &last);
    }
    RM_ReplyWithArray(call->ctx, 2);
    RM_ReplyWithStringBuffer(call->ctx, next ? account_name(last) : "", next ? last->name_length : 0u);
    RM_ReplyWithArray(call->ctx, read);
    for (long i = 0; i < read; i++) {
        size_t begin = i ? ends[i - 1] : 0;
        RM_ReplyWithStringBuffer(call->ctx, (const char *)names + begin, ends[i] - begin);
    }
    return CALL_DONE;
}
