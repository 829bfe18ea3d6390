/* See bundle.h. */
#include "bundle.h"

#include <assert.h>

#include "accounts.h"
#include "outcomes.h"

/* ------------------------------------------------------------------ columns */

struct reader {
    const unsigned char *at;
    size_t left;
    bool fits;
};

/* The next column, NULL for one that the bundle leaves out. */
static const unsigned char *take(struct reader *reader, bool there, size_t size) {
    if (!there) return NULL;
    if (reader->left < size) reader->fits = false;
    if (!reader->fits) return NULL;
    const unsigned char *column = reader->at;
    reader->at += size;
    reader->left -= size;
    return column;
}

/* Sets the columns by what the head says; false when the bundle has another size than that. */
static bool lay_out(struct bundle *bundle, const struct bundle_head *head) {
    struct reader reader = {bundle->bytes + sizeof *head, bundle->size - sizeof *head, true};
    const bool plain = head->flags & BUNDLE_PLAIN, one = head->flags & BUNDLE_ONE_CURRENCY;
    const size_t n = head->transactions, m = head->legs, values = plain ? n : m;
    bundle->rows = head->transactions;
    bundle->leg_count = head->legs;
    bundle->plain = plain;
    bundle->one_currency = one;
    bundle->ids = take(&reader, true, ID_BYTES * n);
    bundle->related = take(&reader, !plain, ID_BYTES * n);
    bundle->bounds = take(&reader, !plain, sizeof(int64_t) * n);
    bundle->amounts = take(&reader, true, sizeof(int64_t) * values);
    bundle->versions = take(&reader, head->flags & BUNDLE_VERSIONS, sizeof(int64_t) * values);
    bundle->slots = take(&reader, true, sizeof(uint16_t) * n);
    bundle->detail_lengths = take(&reader, true, sizeof(uint16_t) * n);
    bundle->kinds = take(&reader, true, n);
    bundle->leg_counts = take(&reader, !plain, n);
    bundle->effects = take(&reader, !plain, m);
    bundle->owners = take(&reader, !plain, m);
    bundle->account_lengths = take(&reader, true, m);
    bundle->currencies = take(&reader, true, one ? 3u : 3u * values);
    bundle->accounts = take(&reader, true, head->account_bytes);
    bundle->details = take(&reader, true, head->detail_bytes);
    take(&reader, true, head->principal_bytes);
    return reader.fits && !reader.left;
}

const char *bundle_measure(const unsigned char *bytes, size_t size, uint32_t *rows, uint32_t *legs) {
    struct bundle_head head;
    if (size < sizeof head) return "bundle: shorter than its head";
    memcpy(&head, bytes, sizeof head);
    if (head.version != LAYOUT_VERSION) return "bundle: another layout";
    if (head.flags & ~(BUNDLE_PLAIN | BUNDLE_ONE_CURRENCY | BUNDLE_VERSIONS)) return "bundle: unknown flags";
    if (!head.transactions || head.transactions > MAX_BATCH) return "bundle: too many transactions, or none";
    bool plain = head.flags & BUNDLE_PLAIN;
    if (plain ? head.legs != 2u * head.transactions : head.legs < head.transactions)
        return "bundle: too many legs, or too few";
    struct bundle bundle = {.bytes = bytes, .size = size};
    if (!lay_out(&bundle, &head)) return "bundle: its size is not that of its columns";
    *rows = head.transactions;
    *legs = head.legs;
    return NULL;
}

size_t bundle_memory(uint32_t rows, uint32_t legs) {
    return ((size_t)legs + rows + rows + 1u) * sizeof(uint32_t) + 3u * ARENA_SLACK;
}

void bundle_recall(struct bundle *bundle, RedisModuleString *kept) {
    struct bundle_head head;
    *bundle = (struct bundle){0};
    bundle->bytes = (const unsigned char *)RM_StringPtrLen(kept, &bundle->size);
    assert(bundle->size >= sizeof head);
    memcpy(&head, bundle->bytes, sizeof head);
    bool fits = lay_out(bundle, &head);
    assert(fits);
    (void)fits;
}

static void take_texts(struct call *call, struct bundle *bundle) {
    bundle->account_at = arena_take(call, bundle->leg_count * sizeof(uint32_t));
    bundle->detail_at = arena_take(call, bundle->rows * sizeof(uint32_t));
}

void bundle_find_texts(struct call *call, struct bundle *bundle) {
    take_texts(call, bundle);
    uint32_t accounts = 0, details = 0;
    for (uint32_t leg = 0; leg < bundle->leg_count; leg++) {
        bundle->account_at[leg] = accounts;
        accounts += bundle->account_lengths[leg];
    }
    for (uint32_t row = 0; row < bundle->rows; row++) {
        bundle->detail_at[row] = details;
        details += bundle_u16(bundle->detail_lengths, row);
    }
}

/* ------------------------------------------------------------------ checks */

static const char *check_transactions(const struct bundle *bundle, struct bundle_head head) {
    uint32_t details = 0;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        uint16_t slot = bundle_slot(bundle, row);
        if (slot >= SLOTS && slot != SYSTEM_SLOT) return "bundle: a slot that there is not";
        if (bundle->kinds[row] < KIND_TRANSFER || bundle->kinds[row] > KIND_VOID) return "bundle: an unknown kind";
        bundle->detail_at[row] = details;
        details += bundle_u16(bundle->detail_lengths, row);
        if (details > head.detail_bytes) break;
    }
    return details == head.detail_bytes ? NULL : "bundle: details of another length";
}

static const char *check_texts(const struct bundle *bundle, struct bundle_head head) {
    uint32_t accounts = 0;
    for (uint32_t leg = 0; leg < bundle->leg_count; leg++) {
        uint8_t length = bundle->account_lengths[leg];
        if (!length || length > MAX_ACCOUNT_ID_BYTES) return "bundle: an account id that is too long, or empty";
        bundle->account_at[leg] = accounts;
        accounts += length;
    }
    if (accounts != head.account_bytes) return "bundle: accounts of another length";
    uint32_t values = bundle->plain ? bundle->rows : bundle->leg_count;
    for (uint32_t i = 0; i < (bundle->one_currency ? 3u : 3u * values); i++)
        if (bundle->currencies[i] < 'A' || bundle->currencies[i] > 'Z') return "bundle: a currency that is none";
    return NULL;
}

static bool is_amount(int64_t amount) { return amount >= 1 && amount <= MAX_MINOR; }
static bool is_version(int64_t version) { return version >= NO_VERSION && version <= MAX_MINOR; }

static const char *check_plain(const struct bundle *bundle) {
    for (uint32_t row = 0; row < bundle->rows; row++) {
        if (!is_amount(bundle_amount(bundle, row))) return "bundle: an amount out of range";
        if (bundle->versions && !is_version(bundle_version(bundle, row))) return "bundle: a version out of range";
        uint32_t payee = bundle->rows + row;
        uint8_t length = bundle->account_lengths[row];
        if (length == bundle->account_lengths[payee] &&
            !memcmp(bundle_account(bundle, row), bundle_account(bundle, payee), length))
            return "bundle: an account in two legs of a transaction";
    }
    return NULL;
}

static bool has_condition(uint8_t effect) { return effect >= EFFECT_REFUND; }
_Static_assert(EFFECT_CREDIT == 1 && EFFECT_DEBIT == 2 && EFFECT_REFUND == 3 && EFFECT_VOID == 6, "has_condition");

static const char *check_leg(const struct bundle *bundle, uint32_t leg) {
    uint8_t effect = bundle->effects[leg], owner = bundle->owners[leg];
    if (effect < EFFECT_CREDIT || effect > EFFECT_VOID) return "bundle: an unknown effect";
    if (owner == ALL_OWNERS) return "bundle: an owner out of range";
    int64_t amount = bundle_amount(bundle, leg), version = bundle_version(bundle, leg);
    if (effect == EFFECT_VOID ? amount != 0 : !is_amount(amount)) return "bundle: an amount out of range";
    if (!is_version(version)) return "bundle: a version out of range";
    if (version != NO_VERSION && owner) return "bundle: a version of another shard's account";
    return NULL;
}

/* Whether an account is in two of these legs. Up to MAX_LEGS names in a table of 256 places, by their hashes. */
static bool has_twice(const struct bundle *bundle, uint32_t first, uint32_t end) {
    uint8_t places[256] = {0};
    _Static_assert(MAX_LEGS < 128, "the table is never more than half full");
    for (uint32_t leg = first; leg < end; leg++) {
        const char *name = bundle_account(bundle, leg);
        uint8_t length = bundle->account_lengths[leg];
        uint8_t place = (uint8_t)fold(name, length, 0);
        for (; places[place]; place++) {
            uint32_t other = first + places[place] - 1u;
            if (length == bundle->account_lengths[other] && !memcmp(name, bundle_account(bundle, other), length))
                return true;
        }
        places[place] = (uint8_t)(leg - first + 1u);
    }
    return false;
}

static const char *check_general(const struct bundle *bundle) {
    uint32_t leg = 0;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        int64_t bound = bundle_bound(bundle, row);
        if (bound < 0 || bound > MAX_MINOR) return "bundle: a bound out of range";
        uint32_t first = leg, end = leg + bundle->leg_counts[row], conditions = 0;
        if (first == end || end - first > MAX_LEGS || end > bundle->leg_count)
            return "bundle: a number of legs out of range";
        /* A refund must know who paid whom: those are its first two legs. */
        if (bundle->kinds[row] == KIND_PURCHASE && end - first < 2u) return "bundle: a purchase without a payee";
        bundle->first_leg[row] = first;
        for (; leg < end; leg++) {
            const char *wrong = check_leg(bundle, leg);
            if (wrong) return wrong;
            conditions += has_condition(bundle->effects[leg]);
        }
        /* The related id and the bound are the transaction's, so they can be those of one leg only. */
        if (conditions > 1) return "bundle: more than one hold, refund, capture or void in a transaction";
        if (has_twice(bundle, first, end)) return "bundle: an account in two legs of a transaction";
    }
    bundle->first_leg[bundle->rows] = leg;
    return leg == bundle->leg_count ? NULL : "bundle: another number of legs";
}

const char *bundle_read(struct call *call, struct bundle *bundle, const unsigned char *bytes, size_t size) {
    struct bundle_head head;
    *bundle = (struct bundle){.bytes = bytes, .size = size};
    assert(size >= sizeof head);
    memcpy(&head, bytes, sizeof head);
    if (!lay_out(bundle, &head)) return "bundle: its size is not that of its columns";
    take_texts(call, bundle);
    if (!bundle->plain) bundle->first_leg = arena_take(call, (bundle->rows + 1u) * sizeof(uint32_t));
    const char *wrong = check_transactions(bundle, head);
    if (!wrong) wrong = check_texts(bundle, head);
    if (!wrong) wrong = bundle->plain ? check_plain(bundle) : check_general(bundle);
    return wrong;
}

/* ------------------------------------------------------------------ checks of what is new */

/* What a leg adds to its account; a hold only sets aside, and a void gives back what was. */
static int64_t moved(const struct bundle *bundle, uint32_t leg) {
    switch (bundle->effects[leg]) {
    case EFFECT_CREDIT:
    case EFFECT_REFUND:
        return bundle_amount(bundle, leg);
    case EFFECT_DEBIT:
    case EFFECT_CAPTURE:
        return -bundle_amount(bundle, leg);
    default:
        return 0;
    }
}

/* Whether a transaction makes no money and loses none, in any currency. */
static bool is_balanced(const struct bundle *bundle, uint32_t row) {
    struct {
        const char *currency;
        int64_t minor;
    } sums[MAX_LEGS];
    _Static_assert(MAX_LEGS < INT64_MAX / MAX_MINOR, "no sum of amounts overflows");
    uint32_t count = 0;
    for (uint32_t leg = bundle->first_leg[row]; leg < bundle->first_leg[row + 1u]; leg++) {
        const char *currency = bundle_currency(bundle, leg);
        uint32_t i = 0;
        while (i < count && memcmp(sums[i].currency, currency, 3u)) i++;
        if (i == count) {
            sums[count].currency = currency;
            sums[count++].minor = 0;
        }
        sums[i].minor += moved(bundle, leg);
    }
    for (uint32_t i = 0; i < count; i++)
        if (sums[i].minor) return false;
    return true;
}

const char *bundle_check_new(const struct call *call, const struct bundle *bundle) {
    const int64_t latest_ms = call_now_ms(call) + MAX_ID_AHEAD_MS;
    for (uint32_t row = 0; row < bundle->rows; row++)
        if (id_ms(bundle_id(bundle, row)) > latest_ms) return "bundle: a transaction id of the future";
    for (uint32_t leg = 0; leg < bundle->leg_count; leg++) {
        const char *name = bundle_account(bundle, leg);
        if (is_system_name(name) && !is_world_name(name, bundle->account_lengths[leg]))
            return "bundle: a system account that there is not";
    }
    for (uint32_t row = 0; !bundle->plain && row < bundle->rows; row++)
        if (!is_balanced(bundle, row)) return "bundle: a transaction whose legs do not sum to zero";
    return NULL;
}

/* ------------------------------------------------------------------ fingerprints */

static unsigned char *put(unsigned char *at, const void *bytes, size_t size) {
    memcpy(at, bytes, size);
    return at + size;
}

static unsigned char *put_leg(unsigned char *at, const struct bundle *bundle, uint32_t leg) {
    int64_t amount = bundle_amount(bundle, leg), version = bundle_version(bundle, leg);
    uint8_t effect = bundle_effect(bundle, leg), length = bundle->account_lengths[leg];
    at = put(at, &effect, 1u);
    at = put(at, &amount, sizeof amount);
    at = put(at, &version, sizeof version);
    at = put(at, bundle_currency(bundle, leg), 3u);
    at = put(at, &length, 1u);
    return put(at, bundle_account(bundle, leg), length);
}

uint64_t bundle_fingerprint(const struct bundle *bundle, uint32_t row, unsigned char *scratch) {
    static const unsigned char no_id[ID_BYTES];
    unsigned char *at = scratch;
    uint8_t legs = (uint8_t)bundle_legs(bundle, row);
    int64_t bound = bundle_bound(bundle, row);
    at = put(at, &bundle->kinds[row], 1u);
    at = put(at, &legs, 1u);
    at = put(at, bundle->related ? bundle->related + (size_t)row * ID_BYTES : no_id, ID_BYTES);
    at = put(at, &bound, sizeof bound);
    for (uint32_t number = 0; number < legs; number++) at = put_leg(at, bundle, bundle_leg(bundle, row, number));
    at = put(at, bundle->details + bundle->detail_at[row], bundle_u16(bundle->detail_lengths, row));
    return fold(scratch, (size_t)(at - scratch), 0);
}
