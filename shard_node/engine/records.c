/* See records.h. */
#include "records.h"

#include <assert.h>
#include <string.h>

/* ------------------------------------------------------------------ the parts of a slot */

static const struct generation *generation_of(const struct state *state, enum slot_part part) {
    bool older = part == PART_PURCHASES_OLDER || part == PART_OUTCOMES_OLDER;
    return &state->generations[older ? !state->current : state->current];
}

const struct table *part_table(const struct state *state, enum slot_part part) {
    switch (part) {
        case PART_ACCOUNTS: return &state->accounts;
        case PART_PURCHASES_YOUNGER:
        case PART_PURCHASES_OLDER: return &generation_of(state, part)->purchases;
        case PART_OUTCOMES_YOUNGER:
        case PART_OUTCOMES_OLDER: return &generation_of(state, part)->outcomes;
        case PART_HOLDS: return &state->holds;
        default: return &state->refunds;
    }
}

/* Where a record has the link to the one behind it. */
static link *next_of(enum slot_part part, void *record) {
    switch (part) {
        case PART_ACCOUNTS: return &((struct account *)record)->next;
        case PART_PURCHASES_YOUNGER:
        case PART_PURCHASES_OLDER: return &((struct purchase *)record)->next;
        case PART_OUTCOMES_YOUNGER:
        case PART_OUTCOMES_OLDER: return &((struct outcome *)record)->next;
        case PART_HOLDS: return &((struct hold *)record)->next;
        default: return &((struct refund *)record)->next;
    }
}

static link *head_of(const struct state *state, enum slot_part part, uint32_t place) {
    const struct generation *generation = generation_of(state, part);
    switch (part) {
        case PART_ACCOUNTS: return &state->account_heads[place];
        case PART_PURCHASES_YOUNGER:
        case PART_PURCHASES_OLDER: return &generation->purchase_heads[place];
        case PART_OUTCOMES_YOUNGER:
        case PART_OUTCOMES_OLDER: return &generation->outcome_heads[place];
        case PART_HOLDS: return &state->hold_heads[place];
        default: return &state->refund_heads[place];
    }
}

link part_first(const struct state *state, enum slot_part part, uint16_t slot) {
    return *head_of(state, part, slot_place(slot));
}

link part_next(const struct state *state, enum slot_part part, link at) {
    return *next_of(part, table_record(part_table(state, part), at - 1u));
}

static void list_reverse(const struct table *table, enum slot_part part, link *head) {
    link reversed = 0;
    for (link at = *head; at;) {
        void *record = table_record(table, at - 1u);
        link *next = next_of(part, record), behind = *next;
        /* Before it comes now what came behind it. */
        if (part == PART_HOLDS) ((struct hold *)record)->previous = behind;
        if (part == PART_REFUNDS) ((struct refund *)record)->previous = behind;
        *next = reversed;
        reversed = at;
        at = behind;
    }
    *head = reversed;
}

void parts_reverse(struct state *state) {
    for (enum slot_part part = 0; part < SLOT_PARTS; part++)
        for (uint32_t place = 0; place < SLOT_PLACES; place++)
            list_reverse(part_table(state, part), part, head_of(state, part, place));
}

bool part_repeats(const struct state *state, enum slot_part part, link at) {
    const struct generation *younger = &state->generations[state->current];
    if (part != PART_PURCHASES_OLDER && part != PART_OUTCOMES_OLDER) return false;
    const void *record = table_record(part_table(state, part), at - 1u);
    if (part == PART_PURCHASES_OLDER) {
        const struct purchase *purchase = record;
        uint64_t hash = scoped_hash(state, purchase->id, purchase->slot);
        return purchase_find_in(younger, purchase->id, purchase->slot, hash);
    }
    const struct outcome *outcome = record;
    return outcome_find_in(younger, outcome->id, outcome->slot, scoped_hash(state, outcome->id, outcome->slot));
}

static size_t kind_size(uint8_t kind) {
    switch (kind) {
        case RECORD_ACCOUNT: return sizeof(struct moved_account);
        case RECORD_OUTCOME: return sizeof(struct moved_outcome);
        case RECORD_PURCHASE: return sizeof(struct moved_purchase);
        case RECORD_HOLD: return sizeof(struct moved_hold);
        case RECORD_REFUND: return sizeof(struct moved_refund);
        default: return 0;
    }
}

static uint8_t part_kind(enum slot_part part) {
    static const uint8_t kinds[SLOT_PARTS] = {RECORD_ACCOUNT, RECORD_PURCHASE, RECORD_PURCHASE, RECORD_OUTCOME,
                                              RECORD_OUTCOME, RECORD_HOLD,     RECORD_REFUND};
    return kinds[part];
}

size_t record_head_size(enum slot_part part) { return 1u + kind_size(part_kind(part)); }

void outcome_part_remove_first(struct state *state, enum slot_part part, uint16_t slot) {
    struct generation *generation = (struct generation *)(uintptr_t)generation_of(state, part);
    bool purchases = part == PART_PURCHASES_YOUNGER || part == PART_PURCHASES_OLDER;
    link *head = &(purchases ? generation->purchase_heads : generation->outcome_heads)[slot_place(slot)];
    struct table *table = purchases ? &generation->purchases : &generation->outcomes;
    uint32_t number = *head - 1u;
    const void *record = table_record(table, number);
    const unsigned char *id =
        purchases ? ((const struct purchase *)record)->id : ((const struct outcome *)record)->id;
    *head = part_next(state, part, *head);
    table_remove(table, scoped_hash(state, id, slot), number);
}

/* ------------------------------------------------------------------ writing */

static unsigned char *put(unsigned char *to, const void *bytes, size_t size) {
    if (size) memcpy(to, bytes, size);
    return to + size;
}

static unsigned char *write_account(const struct account *account, enum record_use use, unsigned char *to) {
    const struct account_extra *extra = account_extra(account);
    struct moved_account record = {
        .available = account->available,
        .held = account->held,
        .coming = use == FOR_SNAPSHOT ? account->coming : 0,
        .version = account->version,
        .minimum = account_minimum(account),
        .maximum_balance = extra ? extra->maximum_balance : 0,
        .maximum_transfer = extra ? extra->maximum_transfer : 0,
        .slot = account->slot,
        .state = account->state & ACCOUNT_STATE_MASK,
        .name_length = account->name_length,
    };
    memcpy(record.currency, account->currency, sizeof record.currency);
    to = put(to, &record, sizeof record);
    return put(to, account_name(account), account->name_length);
}

/* What moves is young on the target: that may forget its older generation at once, and of the source's older one some
   may have been recorded a moment ago. */
static unsigned char *write_outcome(const struct outcome *outcome, bool older, enum record_use use,
                                    unsigned char *to) {
    struct moved_outcome record = {
        .fingerprint = outcome->fingerprint,
        .amount = outcome->amount,
        .slot = outcome->slot,
        .currency = outcome->currency,
        .code = use == FOR_SNAPSHOT ? outcome->code : (uint8_t)(outcome->code & ~OUTCOME_ACROSS),
        .leg = outcome->leg,
        .generation = use == FOR_SNAPSHOT && older,
    };
    memcpy(record.id, outcome->id, sizeof record.id);
    memcpy(record.tick, outcome->tick, sizeof record.tick);
    return put(to, &record, sizeof record);
}

static unsigned char *write_purchase(const struct purchase *purchase, bool older, enum record_use use,
                                     unsigned char *to) {
    struct moved_purchase record = {
        .slot = purchase->slot,
        .generation = use == FOR_SNAPSHOT && older,
        .payer_length = purchase->payer_length,
        .payee_length = purchase->payee_length,
    };
    memcpy(record.id, purchase->id, sizeof record.id);
    to = put(to, &record, sizeof record);
    return put(to, purchase->names, (size_t)purchase->payer_length + purchase->payee_length);
}

static unsigned char *write_hold(const struct state *state, const struct hold *hold, enum record_use use,
                                 unsigned char *to) {
    const struct account *account = account_at(state, hold->account);
    bool pinned = use == FOR_SNAPSHOT && hold_is_pinned(hold);
    struct moved_hold record = {
        .fingerprint = hold->fingerprint,
        .amount = hold->amount,
        .expires_ms = hold->expires_ms,
        .slot = hold->slot,
        .details_length = hold->details_length,
        .account_length = account->name_length,
        .pinned = pinned,
    };
    memcpy(record.id, hold->id, sizeof record.id);
    to = put(to, &record, sizeof record);
    to = put(to, account_name(account), account->name_length);
    to = put(to, hold->details, hold->details_length);
    return put(to, hold->pinned_by, pinned ? ATTEMPT_BYTES : 0u);
}

static unsigned char *write_refund(const struct refund *refund, unsigned char *to) {
    struct moved_refund record = {.slot = refund->slot, .sum = refund->sum};
    memcpy(record.id, refund->id, sizeof record.id);
    return put(to, &record, sizeof record);
}

size_t record_write(const struct state *state, enum slot_part part, link at, enum record_use use, unsigned char *to) {
    const void *record = table_record(part_table(state, part), at - 1u);
    bool older = part == PART_PURCHASES_OLDER || part == PART_OUTCOMES_OLDER;
    unsigned char *end = to;
    *end++ = part_kind(part);
    switch (part) {
        case PART_ACCOUNTS: end = write_account(record, use, end); break;
        case PART_PURCHASES_YOUNGER:
        case PART_PURCHASES_OLDER: end = write_purchase(record, older, use, end); break;
        case PART_OUTCOMES_YOUNGER:
        case PART_OUTCOMES_OLDER: end = write_outcome(record, older, use, end); break;
        case PART_HOLDS: end = write_hold(state, record, use, end); break;
        default: end = write_refund(record, end); break;
    }
    return (size_t)(end - to);
}

/* ------------------------------------------------------------------ reading */

const unsigned char *reader_skip(struct reader *reader, size_t size) {
    if ((size_t)(reader->end - reader->at) < size) return NULL;
    reader->at += size;
    return reader->at - size;
}

bool reader_take(struct reader *reader, void *to, size_t size) {
    const unsigned char *bytes = reader_skip(reader, size);
    if (bytes && size) memcpy(to, bytes, size);
    return bytes;
}

static bool is_slot(uint16_t slot) { return slot < SLOTS || slot == SYSTEM_SLOT; }
static bool is_name(uint8_t length) { return length && length <= MAX_ACCOUNT_ID_BYTES; }
static bool is_minor(int64_t minor) { return minor >= -MAX_MINOR && minor <= MAX_MINOR; }
static bool is_amount(int64_t minor) { return minor >= 0 && minor <= MAX_MINOR; }

static bool is_account(const struct moved_account *account) {
    return is_slot(account->slot) && is_name(account->name_length) && account->state <= ACCOUNT_CLOSED &&
           is_minor(account->available) && is_amount(account->held) &&
           is_minor(account->available + account->held) && is_amount(account->coming) &&
           account->version >= 0 && account->version <= MAX_MINOR && is_minor(account->minimum) && is_amount(account->maximum_balance) &&
           is_amount(account->maximum_transfer);
}

static bool is_outcome(const struct moved_outcome *outcome) {
    return is_slot(outcome->slot) && outcome->code & OUTCOME_CODE_MASK && outcome->leg < MAX_LEGS &&
           outcome->generation <= 1 && is_amount(outcome->amount) && outcome->currency < 26u * 26u * 26u;
}

/* A purchase of one leg has no payee. */
static bool is_purchase(const struct moved_purchase *purchase) {
    return is_slot(purchase->slot) && purchase->generation <= 1 && is_name(purchase->payer_length) &&
           purchase->payee_length <= MAX_ACCOUNT_ID_BYTES;
}

static bool is_hold(const struct moved_hold *hold) {
    return is_slot(hold->slot) && is_name(hold->account_length) && hold->amount > 0 && hold->amount <= MAX_MINOR &&
           hold->expires_ms >= 0 && hold->pinned <= 1;
}

static bool is_refund(const struct moved_refund *refund) {
    return is_slot(refund->slot) && refund->sum > 0 && refund->sum <= MAX_MINOR;
}

/* The texts behind the struct, and what follows from it. */
static bool finish_reading(const struct state *state, struct reader *reader, struct record *record) {
    size_t texts = 0;
    switch (record->kind) {
        case RECORD_ACCOUNT:
            if (!is_account(&record->account)) return false;
            record->slot = record->account.slot;
            texts = record->account.name_length;
            break;
        case RECORD_OUTCOME:
            if (!is_outcome(&record->outcome)) return false;
            record->slot = record->outcome.slot;
            record->hash = scoped_hash(state, record->outcome.id, record->slot);
            break;
        case RECORD_PURCHASE:
            if (!is_purchase(&record->purchase)) return false;
            record->slot = record->purchase.slot;
            record->hash = scoped_hash(state, record->purchase.id, record->slot);
            texts = (size_t)record->purchase.payer_length + record->purchase.payee_length;
            break;
        case RECORD_HOLD:
            if (!is_hold(&record->hold)) return false;
            record->slot = record->hold.slot;
            record->hash = scoped_hash(state, record->hold.id, record->slot);
            texts = (size_t)record->hold.account_length + record->hold.details_length;
            break;
        default:
            if (!is_refund(&record->refund)) return false;
            record->slot = record->refund.slot;
            record->hash = scoped_hash(state, record->refund.id, record->slot);
    }
    record->texts = (const char *)reader_skip(reader, texts);
    if (!record->texts) return false;
    if (record->kind == RECORD_ACCOUNT && is_system_name(record->texts) != (record->slot == SYSTEM_SLOT)) return false;
    if (record->kind == RECORD_ACCOUNT)
        record->hash = account_hash(state, record->texts, record->account.name_length);
    if (record->kind == RECORD_HOLD && record->hold.pinned) {
        record->pinned_by = reader_skip(reader, ATTEMPT_BYTES);
        return record->pinned_by;
    }
    return true;
}

bool record_read(const struct state *state, struct reader *reader, size_t head_size, struct record *record) {
    *record = (struct record){0};
    if (!reader_take(reader, &record->kind, 1)) return false;
    size_t size = kind_size(record->kind);
    if (head_size == WHOLE_RECORD) head_size = size + 1u;
    if (!size || head_size - 1u > size || !reader_take(reader, &record->account, head_size - 1u)) return false;
    return finish_reading(state, reader, record);
}

/* ------------------------------------------------------------------ taking in */

static struct generation *record_generation(struct state *state, uint8_t older) {
    return &state->generations[older ? !state->current : state->current];
}

struct table *record_table(struct state *state, const struct record *record) {
    switch (record->kind) {
        case RECORD_ACCOUNT: return &state->accounts;
        case RECORD_OUTCOME: return &record_generation(state, record->outcome.generation)->outcomes;
        case RECORD_PURCHASE: return &record_generation(state, record->purchase.generation)->purchases;
        case RECORD_HOLD: return &state->holds;
        default: return &state->refunds;
    }
}

static uint32_t account_of(const struct state *state, const char *name, uint32_t length) {
    return account_find(state, name, length, account_hash(state, name, length));
}

/* A snapshot has what each generation has; what was moved is looked for in both. */
static struct outcome *outcome_there(const struct state *state, const struct record *record, enum record_use use) {
    for (uint8_t older = 0; older < 2; older++) {
        const struct generation *generation = &state->generations[older ? !state->current : state->current];
        if (use == FOR_SNAPSHOT && older != record->outcome.generation) continue;
        struct outcome *found = outcome_find_in(generation, record->outcome.id, record->slot, record->hash);
        if (found) return found;
    }
    return NULL;
}

static bool purchase_there(const struct state *state, const struct record *record, enum record_use use) {
    for (uint8_t older = 0; older < 2; older++) {
        const struct generation *generation = &state->generations[older ? !state->current : state->current];
        if (use == FOR_SNAPSHOT && older != record->purchase.generation) continue;
        if (purchase_find_in(generation, record->purchase.id, record->slot, record->hash)) return true;
    }
    return false;
}

static const char *account_conflict(const struct state *state, const struct record *record) {
    uint32_t number = account_find(state, record->texts, record->account.name_length, record->hash);
    if (number == NO_RECORD) return NULL;
    const struct account *account = account_at(state, number);
    const struct account_extra *extra = account_extra(account);
    bool same = account->slot == record->slot && account_minimum(account) == record->account.minimum &&
                (extra ? extra->maximum_balance : 0) == record->account.maximum_balance &&
                (extra ? extra->maximum_transfer : 0) == record->account.maximum_transfer &&
                !memcmp(account->currency, record->account.currency, sizeof account->currency);
    return same ? NULL : "an account is there with other terms";
}

/* The outcome of an unsettled commit is carried over together with its purchase, so that must be there. */
static const char *lacks_purchase(const struct state *state, const struct record *record) {
    const struct moved_outcome *outcome = &record->outcome;
    if (!(outcome->code & OUTCOME_ACROSS) || !(outcome->code & OUTCOME_PURCHASE)) return NULL;
    const struct generation *generation = &state->generations[outcome->generation ? !state->current : state->current];
    bool there = purchase_find_in(generation, outcome->id, record->slot, record->hash);
    return there ? NULL : "the outcome of a purchase comes without payer and payee";
}

const char *record_refusal(const struct state *state, const struct record *record) {
    if (record->kind == RECORD_ACCOUNT) return account_conflict(state, record);
    if (record->kind == RECORD_OUTCOME) return lacks_purchase(state, record);
    if (record->kind != RECORD_HOLD) return NULL;
    uint32_t number = account_of(state, record->texts, record->hold.account_length);
    if (number == NO_RECORD || account_at(state, number)->slot != record->slot)
        return "a hold comes without its account";
    return NULL;
}

static bool hold_is_there(const struct state *state, const struct record *record) {
    uint32_t account = account_of(state, record->texts, record->hold.account_length);
    return hold_find(state, record->hold.id, record->slot, account, NULL) != NO_RECORD;
}

bool record_memory(struct record *record) {
    if (record->kind == RECORD_ACCOUNT) {
        const struct moved_account *account = &record->account;
        int64_t minimum = record->slot == SYSTEM_SLOT && account->minimum == -MAX_MINOR ? 0 : account->minimum;
        if (!account_needs_extra(account->name_length, minimum, account->maximum_balance, account->maximum_transfer))
            return true;
        record->memory = account_extra_new(account->name_length, account->minimum, account->maximum_balance,
                                           account->maximum_transfer);
        return record->memory;
    }
    if (record->kind == RECORD_HOLD) {
        record->memory = RM_TryAlloc(record->hold.details_length + 1u);
        return record->memory;
    }
    return true;
}

bool record_reserve(struct state *state, const struct record *record, const uint64_t *hashes, uint32_t count) {
    if (record->kind == RECORD_HOLD) return holds_reserve(state, hashes, count);
    return table_reserve(record_table(state, record), hashes, count);
}

void record_free(struct record *record) {
    RM_Free(record->memory);
    record->memory = NULL;
}

static void add_account(struct state *state, struct record *record, enum record_use use) {
    const struct moved_account *from = &record->account;
    uint32_t number = account_find(state, record->texts, from->name_length, record->hash);
    if (number == NO_RECORD) {
        number = account_add(state, record->texts, from->name_length, record->hash, record->slot,
                             (const char *)from->currency, record->memory);
        record->memory = NULL;
    }
    struct account *account = account_at(state, number);
    account->available = from->available;
    account->held = from->held;
    if (use == FOR_SNAPSHOT) account->coming = from->coming;
    account->version = from->version;
    account->state = (uint8_t)((account->state & ~ACCOUNT_STATE_MASK) | from->state);
}

static void add_outcome(struct state *state, const struct record *record, enum record_use use) {
    const struct moved_outcome *from = &record->outcome;
    struct outcome *outcome = outcome_there(state, record, use);
    if (!outcome)
        outcome = outcome_add(record_generation(state, from->generation), from->id, record->slot, record->hash);
    outcome->fingerprint = from->fingerprint;
    outcome->amount = from->amount;
    memcpy(outcome->tick, from->tick, sizeof outcome->tick);
    outcome->currency = from->currency;
    outcome->code = use == FOR_SNAPSHOT ? from->code : (uint8_t)(from->code & ~OUTCOME_ACROSS);
    outcome->leg = from->leg;
}

static void add_purchase(struct state *state, const struct record *record, enum record_use use) {
    const struct moved_purchase *from = &record->purchase;
    if (purchase_there(state, record, use)) return;
    struct generation *generation = record_generation(state, from->generation);
    purchase_name(purchase_add(generation, from->id, record->slot, record->hash), record->texts, from->payer_length,
                  record->texts + from->payer_length, from->payee_length);
}

/* A hold does not change while it is there. In a snapshot several may have one name. */
static void add_hold(struct state *state, struct record *record, enum record_use use) {
    if (use == FOR_MOVE && hold_is_there(state, record)) return;
    struct hold hold = {
        .account = account_of(state, record->texts, record->hold.account_length),
        .slot = record->slot,
        .details_length = record->hold.details_length,
        .amount = record->hold.amount,
        .expires_ms = record->hold.expires_ms,
        .fingerprint = record->hold.fingerprint,
        .details = record->memory,
    };
    memcpy(hold.id, record->hold.id, sizeof hold.id);
    memcpy(hold.details, record->texts + record->hold.account_length, hold.details_length);
    record->memory = NULL;
    uint32_t number = hold_add(state, &hold);
    if (record->pinned_by && use == FOR_SNAPSHOT) hold_pin(state, number, record->pinned_by);
}

void record_add(struct state *state, struct record *record, enum record_use use) {
    switch (record->kind) {
        case RECORD_ACCOUNT: add_account(state, record, use); break;
        case RECORD_OUTCOME: add_outcome(state, record, use); break;
        case RECORD_PURCHASE: add_purchase(state, record, use); break;
        case RECORD_HOLD: add_hold(state, record, use); break;
        default:
            refund_change(state, record->refund.id, record->slot,
                          record->refund.sum - refund_sum(state, record->refund.id, record->slot));
    }
    record_free(record);
}
