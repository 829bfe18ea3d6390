/* One input of a fuzzer: calls to a shard, what they log applied to a replica, and what must hold whatever was asked.

   - A call that was refused, and one that only reads, changes nothing; also when memory cannot be had.
   - What is logged makes of the replica what the shard is; so does a snapshot. What a slot holds is the same after a move.
   - What an account has held is its holds and what is prepared; what is coming to it are prepared credits. No balance is
     outside its limits. */
#include <assert.h>
#include <string.h>

#include "accounts.h"
#include "calls.h"
#include "commands.h"
#include "conditions.h"
#include "digest.h"
#include "prepared.h"
#include "records.h"

#define MAX_CALLS 64
#define STEP_US INT64_C(7000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct keyspace primary, replica, other;

static const struct state *state_of(const struct keyspace *keyspace) { return keyspace->state; }

static uint64_t digest(const struct keyspace *keyspace) {
    return keyspace->state ? digest_of_shard(keyspace->state) ^ keyspace->ledger.digest : 0;
}

/* ------------------------------------------------------------------ what must hold of accounts */

static void add_prepared(const struct state *state, uint32_t account, int64_t *held, int64_t *coming) {
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;) {
        struct prepared_walk legs;
        struct prepared_leg leg;
        for (prepared_begin(&legs, attempt_at(state, number)); prepared_next(&legs, &leg);) {
            if (leg.account != account) continue;
            if (leg.effect == EFFECT_DEBIT || leg.effect == EFFECT_HOLD) *held += leg.amount;
            if (leg.effect == EFFECT_CREDIT || leg.effect == EFFECT_REFUND) *coming += leg.amount;
        }
    }
}

static void check_accounts(const struct state *state) {
    uint32_t number, hold;
    for (struct table_walk walk = {0}; (number = table_walk(&state->accounts, &walk)) != NO_RECORD;) {
        const struct account *account = account_at(state, number);
        const struct account_extra *extra = account_extra(account);
        int64_t held = 0, coming = 0, balance = account->available + account->held + account->coming;
        for (struct table_walk holds = {0}; (hold = table_walk(&state->holds, &holds)) != NO_RECORD;)
            if (hold_at(state, hold)->account == number) held += hold_at(state, hold)->amount;
        add_prepared(state, number, &held, &coming);
        assert(account->held == held && account->coming == coming);
        assert(account->available >= account_minimum(account) && balance <= MAX_MINOR && account->version >= 0);
        assert(!extra || !extra->maximum_balance || balance <= extra->maximum_balance);
    }
}

/* All records are in the lists of their slots. */
static void check_lists(const struct state *state) {
    for (enum slot_part part = 0; part < SLOT_PARTS; part++) {
        uint32_t count = 0;
        for (uint32_t place = 0; place < SLOT_PLACES; place++) {
            uint16_t slot = place == SLOTS ? SYSTEM_SLOT : (uint16_t)place;
            for (link at = part_first(state, part, slot); at; at = part_next(state, part, at)) count++;
        }
        assert(count == part_table(state, part)->live);
    }
}

/* ------------------------------------------------------------------ calls */

static bool writes(const RedisModuleString *name) {
    size_t size;
    const char *text = RM_StringPtrLen(name, &size);
    const struct command *command = command_find(text, size);
    return command && command->traits & COMMAND_WRITES;
}

static void run_call(struct keyspace *keyspace, struct made_call *call, uint32_t failing) {
    uint64_t before = digest(keyspace);
    stub_fail(failing);
    struct outcome_of_call done = stub_run(keyspace, call->argv, call->argc);
    stub_fail(0);
    if (done.refused || !writes(call->argv[0])) assert(digest(keyspace) == before);
    if (done.logged) stub_replicate(keyspace == &primary ? &replica : &other);
    if (keyspace == &primary) assert(digest(&primary) == digest(&replica));
}

static void begin(void) {
    struct made_call call = {0};
    stub_set_clock(NOW_MS * 1000);
    call_add_text(&call, "tallystick.bind");
    call_add_text(&call, "test/shard-0");
    call_add_number(&call, 1);
    call_add_number(&call, 50000);
    call_add_number(&call, 1000000);
    run_call(&primary, &call, 0);
    call_free(&call);
    call_add_text(&call, "tallystick.open");
    call_add_text(&call, FENCE);
    call_open_all(&call);
    run_call(&primary, &call, 0);
    call_free(&call);
}

/* ------------------------------------------------------------------ snapshots, moves */

static void change_bytes(unsigned char *bytes, size_t size, void *with) { damage(with, bytes, size); }

static void reload(struct input *input, bool damaged) {
    struct keyspace loaded;
    bool good = stub_reload(&primary, &loaded, damaged ? change_bytes : NULL, input);
    assert(good || damaged);
    if (!damaged) {
        assert(digest(&loaded) == digest(&primary));
        check_accounts(loaded.state);
        assert(state_of(&loaded)->kept_bytes == state_of(&primary)->kept_bytes);
        /* The loaded one goes on, its tables anew, beside a replica that was never loaded. */
        stub_flush(&primary);
        primary = loaded;
    } else if (good) {
        digest(&loaded);
        stub_flush(&loaded);
    }
}

/* Exports a slot chunk by chunk and takes it in elsewhere. */
static void move_slot(struct input *input) {
    uint32_t slot = pick(input, USED_SLOTS), bytes = 1u + pick(input, 256) * 8u;
    bool damaged = pick(input, 2);
    unsigned char cursor[128];
    size_t cursor_size = 0;
    struct made_call call = {0};
    stub_flush(&other);
    call_add_text(&call, "tallystick.bind");
    call_add_text(&call, "test/shard-0");
    for (int i = 0; i < 3; i++) call_add_number(&call, 1);
    stub_run(&other, call.argv, call.argc);
    do {
        call_free(&call);
        call_add_text(&call, "tallystick.slot.export");
        call_add_text(&call, FENCE);
        call_add_number(&call, slot);
        call_add(&call, cursor, cursor_size);
        call_add_number(&call, bytes);
        stub_run(&primary, call.argv, call.argc);
        call_free(&call);
        size_t size;
        const unsigned char *made = stub_reply_string(0, &cursor_size);
        assert(made && cursor_size <= sizeof cursor);
        memcpy(cursor, made, cursor_size);
        made = stub_reply_string(1, &size);
        RedisModuleString *chunk = stub_string(made, size);
        if (damaged) {
            unsigned char *changed = (unsigned char *)(uintptr_t)RM_StringPtrLen(chunk, &size);
            RedisModuleString *cut = stub_string(changed, damage(input, changed, size));
            stub_free(chunk);
            chunk = cut;
        }
        call_add_text(&call, "tallystick.slot.import");
        call_add_text(&call, FENCE);
        call_add_number(&call, slot);
        call.argv[call.argc++] = chunk;
        uint64_t before = digest(&other);
        bool refused = stub_run(&other, call.argv, call.argc).refused;
        assert(!refused || (damaged && digest(&other) == before));
    } while (cursor_size);
    call_free(&call);
    if (!damaged)
        assert(digest_of_slot(other.state, (uint16_t)slot) == digest_of_slot(primary.state, (uint16_t)slot));
}

/* ------------------------------------------------------------------ an input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool loaded;
    struct input input = {data, size};
    int64_t now_us = NOW_MS * 1000;
    if (!loaded) stub_load();
    loaded = true;
    begin();
    for (int calls = 0; input.left && calls < MAX_CALLS; calls++) {
        uint32_t failing = 0;
        switch (pick(&input, 32)) {
        case 31:
            reload(&input, pick(&input, 2));
            continue;
        case 30:
            move_slot(&input);
            continue;
        case 29:
        case 28:
            stub_set_clock(now_us += STEP_US);
            continue;
        case 27:
        case 26:
        case 25:
            failing = 1u + pick(&input, 40);
            break;
        default:
            break;
        }
        struct made_call call;
        call_make(&input, &call);
        run_call(&primary, &call, failing);
        call_free(&call);
        check_accounts(primary.state);
        check_lists(primary.state);
    }
    stub_flush(&primary);
    stub_flush(&replica);
    stub_flush(&other);
    return 0;
}
