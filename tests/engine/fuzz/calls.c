/* See calls.h. */
#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#define MAX_CALL_BYTES (1u << 20)
#define ATTEMPTS 6u
#define IDS 12u

static const char *const names[] = {
    "alice",
    "bob",
    "a-name-of-twenty-one-",
    "a-name-of-twenty-two-.",
    "the-longest-name-that-an-account-may-have-is-of-sixty-four-bytes",
    "limited",
    "z",
    "@world:EUR",
    "@world:USD",
    "nobody",
};
enum { NAMES = sizeof names / sizeof *names, OPENED = 7 };

static unsigned char scratch[MAX_CALL_BYTES];
static size_t used;

uint32_t pick(struct input *input, uint32_t count) {
    if (!input->left) return 0;
    input->left--;
    return *input->at++ % count;
}

static bool rarely(struct input *input, uint32_t one_of) { return pick(input, one_of) == one_of - 1u; }

static void put(const void *bytes, size_t size) {
    if (used + size > sizeof scratch) abort();
    if (size) memcpy(scratch + used, bytes, size);
    used += size;
}

static void put_i64(int64_t number) { put(&number, sizeof number); }
static void put_u16(uint16_t number) { put(&number, sizeof number); }
static void put_byte(uint32_t byte) {
    uint8_t one = (uint8_t)byte;
    put(&one, 1u);
}

void call_add(struct made_call *call, const void *bytes, size_t size) {
    if (call->argc < MAX_CALL_ARGUMENTS) call->argv[call->argc++] = stub_string(bytes, size);
}

void call_add_text(struct made_call *call, const char *text) { call_add(call, text, strlen(text)); }

void call_add_number(struct made_call *call, long long number) {
    char text[24];
    call_add(call, text, (size_t)snprintf(text, sizeof text, "%lld", number));
}

void call_free(struct made_call *call) {
    while (call->argc) stub_free(call->argv[--call->argc]);
}

size_t damage(struct input *input, unsigned char *bytes, size_t size) {
    for (uint32_t times = 1u + pick(input, 3); times && size; times--) {
        size_t at = (pick(input, 256) << 8 | pick(input, 256)) % size;
        switch (pick(input, 4)) {
        case 0:
            bytes[at] = (unsigned char)pick(input, 256);
            break;
        case 1:
            bytes[at] ^= (unsigned char)(1u << pick(input, 8));
            break;
        case 2:
            size = at;
            break;
        default:
            memmove(bytes + at, bytes + at + 1u, size - at - 1u);
            size--;
        }
    }
    return size;
}

/* What was put, as an argument. */
static void add_made(struct input *input, struct made_call *call) {
    if (rarely(input, 24)) used = damage(input, scratch, used);
    call_add(call, scratch, used);
    used = 0;
}

/* ------------------------------------------------------------------ ids, amounts */

static void put_ms(int64_t ms) {
    for (int shift = 40; shift >= 0; shift -= 8) put_byte((uint32_t)(ms >> shift));
}

static void put_id(struct input *input) {
    uint32_t number = pick(input, IDS + 2u);
    unsigned char rest[10] = {0};
    bool newer = number < IDS;
    if (number % 4u != 3u) rest[0] = 0x70;
    rest[9] = (unsigned char)number;
    put_ms(newer ? NOW_MS + number : NOW_MS - 100000);
    put(rest, sizeof rest);
}

static void put_attempt(struct input *input) {
    uint32_t number = pick(input, ATTEMPTS + 2u);
    unsigned char rest[10] = {(unsigned char)number};
    put_ms(number < ATTEMPTS ? NOW_MS + 10 * number : NOW_MS + (number % 2u ? 1000000000 : -100000));
    put(rest, sizeof rest);
}

static int64_t amount(struct input *input) {
    static const int64_t edges[] = {MAX_MINOR, MAX_MINOR - 1, MAX_MINOR / 2, MAX_MINOR / 2 + 1, 0, -1, INT64_MAX};
    if (rarely(input, 12)) return edges[pick(input, sizeof edges / sizeof *edges)];
    return 1 + pick(input, 40);
}

static uint32_t name(struct input *input) { return rarely(input, 3) ? pick(input, NAMES) : pick(input, 2); }

static void put_name(uint32_t number) { put(names[number], strlen(names[number])); }

/* ------------------------------------------------------------------ bundles */

enum { MAX_ROWS = 48, MAX_OWN_LEGS = 400 };

struct shape {
    uint32_t rows, legs;
    uint8_t counts[MAX_ROWS], effects[MAX_OWN_LEGS], owners[MAX_OWN_LEGS], details[MAX_ROWS], legs_names[MAX_OWN_LEGS];
    int64_t amounts[MAX_OWN_LEGS]; /* of a plain one, a transaction */
    bool plain, one_currency, versions;
};

static void shape_plain(struct input *input, struct shape *shape) {
    shape->legs = 2u * shape->rows;
    for (uint32_t row = 0; row < shape->rows; row++) {
        shape->legs_names[row] = (uint8_t)name(input);
        shape->legs_names[shape->rows + row] = (uint8_t)name(input);
        shape->amounts[row] = amount(input);
    }
}

/* Gives the last leg of a transaction what makes up for its others, if there is one that it can have. */
static void even_out(struct shape *shape, uint32_t first) {
    const uint32_t last = shape->legs - 1u;
    int64_t sum = 0;
    for (uint32_t leg = first; leg < last; leg++) {
        const uint8_t effect = shape->effects[leg];
        if (shape->amounts[leg] < 0 || shape->amounts[leg] > MAX_MINOR) return;
        if (effect == EFFECT_CREDIT || effect == EFFECT_REFUND) sum += shape->amounts[leg];
        if (effect == EFFECT_DEBIT || effect == EFFECT_CAPTURE) sum -= shape->amounts[leg];
    }
    if (!sum) return;
    shape->effects[last] = sum > 0 ? EFFECT_DEBIT : EFFECT_CREDIT;
    shape->amounts[last] = sum > 0 ? sum : -sum;
}

static void shape_general(struct input *input, struct shape *shape, uint32_t owner) {
    for (uint32_t row = 0; row < shape->rows; row++) {
        uint32_t count = 1u + pick(input, 3);
        if (rarely(input, 64)) count = MAX_LEGS;
        if (shape->legs + count > MAX_OWN_LEGS) count = 1;
        shape->counts[row] = (uint8_t)count;
        const uint32_t first = shape->legs;
        for (uint32_t n = 0; n < count; n++) {
            uint32_t leg = shape->legs++;
            shape->effects[leg] = (uint8_t)(n ? 1u + pick(input, 2) : count > 1u ? 1u + pick(input, 6) : 5u + pick(input, 2));
            shape->owners[leg] = (uint8_t)(rarely(input, 3) ? pick(input, 3) : owner);
            shape->legs_names[leg] = (uint8_t)name(input);
            shape->amounts[leg] = shape->effects[leg] == EFFECT_VOID ? 0 : amount(input);
        }
        if (count > 1u && !rarely(input, 24)) even_out(shape, first);
    }
}

static uint32_t name_bytes(const struct shape *shape) {
    uint32_t size = 0;
    for (uint32_t leg = 0; leg < shape->legs; leg++) size += (uint32_t)strlen(names[shape->legs_names[leg]]);
    return size;
}

static void put_head(const struct shape *shape) {
    uint32_t details = 0;
    for (uint32_t row = 0; row < shape->rows; row++) details += shape->details[row];
    struct bundle_head head = {
        .version = LAYOUT_VERSION,
        .flags = (uint8_t)((shape->plain ? BUNDLE_PLAIN : 0) | (shape->one_currency ? BUNDLE_ONE_CURRENCY : 0) |
                           (shape->versions ? BUNDLE_VERSIONS : 0)),
        .transactions = (uint16_t)shape->rows,
        .legs = (uint16_t)shape->legs,
        .account_bytes = name_bytes(shape),
        .detail_bytes = details,
        .principal_bytes = 0,
    };
    put(&head, sizeof head);
}

static void put_bundle(struct input *input, uint32_t owner) {
    static struct shape shape;
    shape = (struct shape){.rows = 1u + pick(input, 4), .plain = pick(input, 2)};
    if (rarely(input, 32)) shape.rows = 33u + pick(input, MAX_ROWS - 32);
    shape.one_currency = !rarely(input, 4);
    shape.versions = rarely(input, 8);
    if (shape.plain)
        shape_plain(input, &shape);
    else
        shape_general(input, &shape, owner);
    for (uint32_t row = 0; row < shape.rows; row++) shape.details[row] = (uint8_t)(rarely(input, 4) ? 9 : 0);
    const uint32_t values = shape.plain ? shape.rows : shape.legs;
    /* The length of the last name, or of the last details, that is not true. */
    const uint32_t name_lie = rarely(input, 24) ? pick(input, 9) : 0, details_lie = rarely(input, 24) ? pick(input, 9) : 0;
    put_head(&shape);
    for (uint32_t row = 0; row < shape.rows; row++) put_id(input);
    for (uint32_t row = 0; row < shape.rows && !shape.plain; row++) put_id(input);
    for (uint32_t row = 0; row < shape.rows && !shape.plain; row++) put_i64(pick(input, 4) * 25000);
    for (uint32_t i = 0; i < values; i++) put_i64(shape.amounts[i]);
    for (uint32_t i = 0; i < values && shape.versions; i++)
        put_i64(!shape.plain && shape.owners[i] ? NO_VERSION : (int64_t)pick(input, 8) - 1);
    for (uint32_t row = 0; row < shape.rows; row++) put_u16(rarely(input, 8) ? SYSTEM_SLOT : 1);
    for (uint32_t row = 0; row < shape.rows; row++)
        put_u16((uint16_t)(shape.details[row] + (row + 1u == shape.rows ? details_lie : 0u)));
    for (uint32_t row = 0; row < shape.rows; row++) put_byte(1u + pick(input, 9));
    put(shape.counts, shape.plain ? 0 : shape.rows);
    put(shape.effects, shape.plain ? 0 : shape.legs);
    put(shape.owners, shape.plain ? 0 : shape.legs);
    for (uint32_t leg = 0; leg < shape.legs; leg++)
        put_byte((uint32_t)strlen(names[shape.legs_names[leg]]) + (leg + 1u == shape.legs ? name_lie : 0u));
    for (uint32_t i = 0; i < (shape.one_currency ? 1u : values); i++) put(rarely(input, 8) ? "USD" : "EUR", 3);
    for (uint32_t leg = 0; leg < shape.legs; leg++) put_name(shape.legs_names[leg]);
    for (uint32_t row = 0; row < shape.rows; row++) put("details..", shape.details[row]);
}

/* ------------------------------------------------------------------ calls */

static void put_codes(struct input *input, const uint8_t *codes, uint32_t count, uint32_t size) {
    for (; size; size--) put_byte(codes[pick(input, count)]);
}

static void add_attempt(struct input *input, struct made_call *call) {
    put_attempt(input);
    add_made(input, call);
}

static void put_settled(struct input *input) {
    for (uint32_t n = pick(input, 3); n; n--) {
        put_attempt(input);
        put_byte(pick(input, 4));
    }
}

static void make_post(struct input *input, struct made_call *call) {
    call_add_number(call, pick(input, 2));
    put_bundle(input, 0);
    add_made(input, call);
}

static void make_prepare(struct input *input, struct made_call *call) {
    for (uint32_t n = 1u + pick(input, 2); n; n--) {
        uint32_t owner = 1u + (rarely(input, 4) ? pick(input, 3) : 0u);
        add_attempt(input, call);
        call_add_text(call, rarely(input, 16) ? "" : "test/shard-1");
        call_add_number(call, owner);
        put_bundle(input, owner);
        add_made(input, call);
    }
}

static void make_decide(struct input *input, struct made_call *call) {
    static const uint8_t verdicts[] = {0, 0, 0, CODE_SKIPPED, CODE_ACCOUNT_FROZEN, CODE_BUSY};
    call_add_number(call, pick(input, 2));
    put_settled(input);
    add_made(input, call);
    for (uint32_t n = 1u + pick(input, 2); n; n--) {
        add_attempt(input, call);
        put("\1a\2bc", rarely(input, 2) ? 2 : 5);
        add_made(input, call);
        put_codes(input, verdicts, sizeof verdicts, pick(input, 3));
        add_made(input, call);
        put_codes(input, verdicts, 1, pick(input, 3));
        add_made(input, call);
        put_bundle(input, 0);
        add_made(input, call);
    }
}

static void make_finish(struct input *input, struct made_call *call) {
    static const uint8_t codes[] = {CODE_COMMITTED, CODE_COMMITTED, CODE_ABORTED, 0};
    call_add_number(call, pick(input, 2));
    for (uint32_t n = 1u + pick(input, 2); n; n--) {
        add_attempt(input, call);
        put_codes(input, codes, sizeof codes, rarely(input, 3) ? pick(input, 5) : 1u);
        add_made(input, call);
    }
}

static void make_settle(struct input *input, struct made_call *call) {
    put_settled(input);
    add_made(input, call);
}

static void make_abandon(struct input *input, struct made_call *call) {
    for (uint32_t n = 1u + pick(input, 2); n; n--) add_attempt(input, call);
}

static void make_set_state(struct input *input, struct made_call *call) {
    uint32_t count = 1u + pick(input, 2), chosen[2] = {pick(input, NAMES), pick(input, NAMES)};
    call_add_number(call, pick(input, 2));
    put_u16((uint16_t)count);
    for (uint32_t i = 0; i < count; i++) put_byte(KIND_FREEZE + pick(input, 3));
    for (uint32_t i = 0; i < count; i++) put_byte((uint32_t)strlen(names[chosen[i]]));
    for (uint32_t i = 0; i < count; i++) put_name(chosen[i]);
    add_made(input, call);
}

void call_open_all(struct made_call *call) {
    put_u16(OPENED);
    for (int i = 0; i < OPENED; i++) put_i64(i == 5 ? -100 : 0);
    for (int i = 0; i < OPENED; i++) put_i64(i == 5 ? 500 : 0);
    for (int i = 0; i < OPENED; i++) put_i64(i == 5 ? 30 : 0);
    for (int i = 0; i < OPENED; i++) put_u16((uint16_t)i % USED_SLOTS);
    for (int i = 0; i < OPENED; i++) put("EUR", 3);
    for (int i = 0; i < OPENED; i++) put_byte((uint32_t)strlen(names[i]));
    for (uint32_t i = 0; i < OPENED; i++) put_name(i);
    call_add(call, scratch, used);
    used = 0;
}

static void make_open(struct input *input, struct made_call *call) {
    call_open_all(call);
    RedisModuleString *last = call->argv[--call->argc];
    size_t size;
    put(RM_StringPtrLen(last, &size), size);
    stub_free(last);
    if (rarely(input, 2)) used = damage(input, scratch, used);
    add_made(input, call);
}

static void make_accounts(struct input *input, struct made_call *call) {
    uint32_t count = 1u + pick(input, 4), chosen[4];
    put_u16((uint16_t)count);
    for (uint32_t i = 0; i < count; i++) chosen[i] = pick(input, NAMES);
    for (uint32_t i = 0; i < count; i++) put_byte((uint32_t)strlen(names[chosen[i]]));
    for (uint32_t i = 0; i < count; i++) put_name(chosen[i]);
    add_made(input, call);
}

static void make_check(struct input *input, struct made_call *call) {
    call_add_number(call, rarely(input, 2) ? ALL_OWNERS : pick(input, 3));
    put_bundle(input, 0);
    add_made(input, call);
}

static void make_outcomes(struct input *input, struct made_call *call) {
    for (uint32_t n = 1u + pick(input, 4); n; n--) {
        put_id(input);
        put_u16(1);
    }
    add_made(input, call);
}

static void make_names(struct input *input, struct made_call *call) {
    call_add_text(call, rarely(input, 2) ? names[pick(input, NAMES)] : "");
    for (uint32_t n = 1u + pick(input, 4); n; n--) put_u16(rarely(input, 4) ? SYSTEM_SLOT : (uint16_t)pick(input, 5));
    add_made(input, call);
}

static void make_in_doubt(struct input *input, struct made_call *call) {
    call_add_number(call, pick(input, 4));
    call_add_number(call, pick(input, 4));
}

static void make_rotate(struct input *input, struct made_call *call) {
    call_add_number(call, pick(input, 4) * 20000);
    call_add_number(call, pick(input, 2));
    if (rarely(input, 3)) call_add_number(call, NOW_MS + pick(input, 4) * 20000);
}

static void make_expire(struct input *input, struct made_call *call) { call_add_number(call, pick(input, 4)); }

static void make_archived(struct input *input, struct made_call *call) {
    static const char *const ids[] = {"1800000000000-0", "1800000000000-3", "1800000020000-0", "-1-1", "x", "1-"};
    call_add_text(call, ids[pick(input, 6)]);
    call_add_number(call, pick(input, 8));
    call_add_text(call, rarely(input, 8) ? "" : "hash");
    call_add_number(call, pick(input, 8));
}

static void make_bind(struct input *input, struct made_call *call) {
    /* It has no fence. */
    stub_free(call->argv[--call->argc]);
    call_add_text(call, rarely(input, 8) ? "other/shard" : "test/shard-0");
    call_add_number(call, 1);
    call_add_number(call, pick(input, 3) * 50000);
    call_add_number(call, rarely(input, 4) ? pick(input, 64) : 1000000);
}

static void make_rename(struct input *input, struct made_call *call) {
    call_add_text(call, rarely(input, 2) ? "test" : "a/b");
    /* No higher one: all later calls would be stale. */
    call_add_number(call, (long long)pick(input, 3) - 1);
}

static void make_slot(struct input *input, struct made_call *call) { call_add_number(call, pick(input, USED_SLOTS + 1u)); }

static void make_slot_drop(struct input *input, struct made_call *call) {
    make_slot(input, call);
    /* Enough for all of it: in between holds are gone and their accounts are not. */
    call_add_number(call, rarely(input, 8) ? 0 : 1000);
}

static void make_slot_export(struct input *input, struct made_call *call) {
    make_slot(input, call);
    for (uint32_t n = rarely(input, 2) ? 72u : 0u; n; n--) put_byte(pick(input, 8));
    add_made(input, call);
    call_add_number(call, 1 + pick(input, 200));
}

static void make_nothing(struct input *input, struct made_call *call) { (void)input, (void)call; }

/* Nonsense: any command with any arguments. */
static const struct {
    const char *name;
    void (*make)(struct input *input, struct made_call *call);
    uint32_t weight;
} makers[] = {
    {"tallystick.post", make_post, 10},        {"tallystick.prepare", make_prepare, 12},
    {"tallystick.decide", make_decide, 10},    {"tallystick.finish", make_finish, 12},
    {"tallystick.settle", make_settle, 3},     {"tallystick.abandon", make_abandon, 3},
    {"tallystick.open", make_open, 2},         {"tallystick.set_state", make_set_state, 3},
    {"tallystick.accounts", make_accounts, 1}, {"tallystick.check", make_check, 3},
    {"tallystick.outcomes", make_outcomes, 1}, {"tallystick.names", make_names, 1},
    {"tallystick.in_doubt", make_in_doubt, 1}, {"tallystick.rotate", make_rotate, 3},
    {"tallystick.expire", make_expire, 3},     {"tallystick.archived", make_archived, 1},
    {"tallystick.bind", make_bind, 1},         {"tallystick.slot.count", make_slot, 1},
    {"tallystick.slot.drop", make_slot_drop, 1}, {"tallystick.slot.export", make_slot_export, 1},
    {"tallystick.rename", make_rename, 1},
    {"tallystick.mark", make_nothing, 1},      {"tallystick.slot.import", make_slot_export, 1},
};

void call_make(struct input *input, struct made_call *call) {
    static uint32_t total;
    uint32_t chosen = 0;
    if (!total)
        for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) total += makers[i].weight;
    for (uint32_t at = pick(input, total); at >= makers[chosen].weight; chosen++) at -= makers[chosen].weight;
    *call = (struct made_call){0};
    used = 0;
    call_add_text(call, makers[chosen].name);
    call_add_text(call, rarely(input, 48) ? "test/shard-0/2" : FENCE);
    makers[chosen].make(input, call);
    /* Another number of arguments, or one that another command would take. */
    if (rarely(input, 48)) stub_free(call->argv[--call->argc]);
    if (rarely(input, 48)) call_add_number(call, (long long)pick(input, 256) - 128);
}
