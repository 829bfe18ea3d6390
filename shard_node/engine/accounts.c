/* See accounts.h. */
#include "accounts.h"

#include <assert.h>
#include <string.h>

#include "hash.h"

uint64_t account_hash(const struct state *state, const char *name, uint32_t length) {
    return fold(name, length, state->seed);
}

const struct account_extra *account_extra(const struct account *account) {
    if (!(account->state & ACCOUNT_EXTRA)) return NULL;
    const struct account_extra *extra;
    memcpy(&extra, account->name, sizeof extra);
    return extra;
}

const char *account_name(const struct account *account) {
    const struct account_extra *extra = account_extra(account);
    return extra ? extra->name : account->name;
}

int64_t account_minimum(const struct account *account) {
    const struct account_extra *extra = account_extra(account);
    if (extra) return extra->minimum;
    return account_is_system(account) ? -MAX_MINOR : 0;
}

uint32_t account_find(const struct state *state, const char *name, uint32_t length, uint64_t hash) {
    const struct segment *segment = table_segment(&state->accounts, hash);
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(segment, hash, &place)) != NO_RECORD) {
        const struct account *account = account_at(state, number);
        if (account->name_length == length && !memcmp(account_name(account), name, length)) break;
    }
    return number;
}

bool account_needs_extra(uint32_t length, int64_t minimum, int64_t maximum_balance, int64_t maximum_transfer) {
    return length > INLINE_NAME_BYTES || minimum || maximum_balance || maximum_transfer;
}

struct account_extra *account_extra_new(uint32_t length, int64_t minimum, int64_t maximum_balance,
                                        int64_t maximum_transfer) {
    struct account_extra *extra = RM_TryAlloc(sizeof *extra + length);
    if (!extra) return NULL;
    extra->minimum = minimum;
    extra->maximum_balance = maximum_balance;
    extra->maximum_transfer = maximum_transfer;
    return extra;
}

uint32_t account_add(struct state *state, const char *name, uint32_t length, uint64_t hash, uint16_t slot,
                     const char currency[3], struct account_extra *extra) {
    assert(length && length <= MAX_ACCOUNT_ID_BYTES && (extra || length <= INLINE_NAME_BYTES));
    uint32_t number = table_add(&state->accounts, hash);
    struct account *account = account_at(state, number);
    link *head = &state->account_heads[slot_place(slot)];
    account->next = *head;
    *head = number + 1u;
    account->slot = slot;
    account->name_length = (uint8_t)length;
    memcpy(account->currency, currency, sizeof account->currency);
    if (extra) {
        account->state = ACCOUNT_EXTRA;
        state->kept_bytes += sizeof *extra + length;
        memcpy(account->name, &extra, sizeof extra);
        memcpy(extra->name, name, length);
    } else {
        memcpy(account->name, name, length);
    }
    return number;
}

void account_release(struct state *state, struct account *account) {
    if (!(account->state & ACCOUNT_EXTRA)) return;
    struct account_extra *extra;
    memcpy(&extra, account->name, sizeof extra);
    RM_Free(extra);
    state->kept_bytes -= sizeof *extra + account->name_length;
}

void account_remove_first(struct state *state, uint16_t slot) {
    link *head = &state->account_heads[slot_place(slot)];
    assert(*head);
    uint32_t number = *head - 1u;
    struct account *account = account_at(state, number);
    *head = account->next;
    uint64_t hash = account_hash(state, account_name(account), account->name_length);
    account_release(state, account);
    table_remove(&state->accounts, hash, number);
}

bool is_world_name(const char *name, uint32_t length) {
    static const char world[] = "@world:";
    const uint32_t prefix = sizeof world - 1u;
    if (length != prefix + 3u || memcmp(name, world, prefix)) return false;
    for (uint32_t i = prefix; i < length; i++)
        if (name[i] < 'A' || name[i] > 'Z') return false;
    return true;
}

bool is_text(const char *name, uint32_t length) {
    /* By the number of bytes that follow the first one: the least code that needs so many. */
    static const uint32_t least[] = {1u, 0x80u, 0x800u, 0x10000u};
    const unsigned char *at = (const unsigned char *)name, *end = at + length;
    while (at < end) {
        const unsigned char first = *at++;
        if (first >= 0xF8u || (first & 0xC0u) == 0x80u) return false;
        const uint32_t more = first < 0x80u ? 0 : first < 0xE0u ? 1u : first < 0xF0u ? 2u : 3u;
        uint32_t code = more ? first & 0x3Fu >> more : first;
        if ((size_t)(end - at) < more) return false;
        for (uint32_t i = 0; i < more; i++, at++) {
            if ((*at & 0xC0u) != 0x80u) return false;
            code = code << 6 | (*at & 0x3Fu);
        }
        if (code < least[more] || code > 0x10FFFFu || (code >= 0xD800u && code <= 0xDFFFu)) return false;
    }
    return true;
}

uint32_t account_begin_system(struct state *state, const char *name, uint32_t length, uint64_t hash) {
    if (!table_reserve(&state->accounts, &hash, 1u)) return NO_RECORD;
    struct account_extra *extra = NULL;
    if (length > INLINE_NAME_BYTES && !(extra = account_extra_new(length, -MAX_MINOR, 0, 0))) return NO_RECORD;
    /* A name too short for a currency gets one that no transaction has. */
    char currency[3] = {0};
    if (length > sizeof currency) memcpy(currency, name + length - sizeof currency, sizeof currency);
    return account_add(state, name, length, hash, SYSTEM_SLOT, currency, extra);
}

void accounts_end_unused(struct state *state, uint32_t begun) {
    link *head = &state->account_heads[SLOTS];
    link used = 0;
    for (; begun; begun--) {
        uint32_t number = *head - 1u;
        struct account *account = account_at(state, number);
        if (!account->version && !account->available && !account->held && !account->coming) {
            account_remove_first(state, SYSTEM_SLOT);
            continue;
        }
        *head = account->next;
        account->next = used;
        used = number + 1u;
    }
    while (used) {
        struct account *account = account_at(state, used - 1u);
        link next = account->next;
        account->next = *head;
        *head = used;
        used = next;
    }
}
