/* A batch of transactions as it came, as columns; see shard_node/contract/layout.py for the layout.

   Everything that is said of a bundle's bytes is checked here, in bundle_read, before a command changes anything: every
   length, count, enum and range, and that no account is in two legs of one transaction. Whatever is asked of a live
   shard must pass bundle_check_new, too: its transactions move money and make none, their ids are not of the
   future, and no account begins with them but the system's own. */
#ifndef TALLYSTICK_BUNDLE_H
#define TALLYSTICK_BUNDLE_H

#include <string.h>

#include "call.h"

struct bundle {
    const unsigned char *bytes;
    size_t size;
    uint32_t rows, leg_count;
    bool plain, one_currency;
    /* The columns; NULL for one that the bundle leaves out. */
    const unsigned char *ids, *related, *bounds, *amounts, *versions, *slots, *detail_lengths, *kinds, *leg_counts,
        *effects, *owners, *account_lengths, *currencies, *accounts, *details;
    /* Where texts and legs begin; made by bundle_read. */
    uint32_t *account_at; /* a leg */
    uint32_t *detail_at;  /* a transaction */
    uint32_t *first_leg;  /* a transaction, and one more for the end; NULL of a plain bundle */
};

/* Counts what a bundle has, to know how much memory reading it takes. NULL, or what is wrong with its head. */
const char *bundle_measure(const unsigned char *bytes, size_t size, uint32_t *rows, uint32_t *legs);
/* Bytes of the arena that bundle_read takes. */
size_t bundle_memory(uint32_t rows, uint32_t legs);
/* Reads and checks all of it. NULL, or what is wrong with it. */
const char *bundle_read(struct call *call, struct bundle *bundle, const unsigned char *bytes, size_t size);
/* Checks what a bundle that was read must be besides to be asked for anew. What is kept, or in the log of an engine that
   did not check this, need not be. NULL, or what is wrong with it. */
const char *bundle_check_new(const struct call *call, const struct bundle *bundle);
/* The columns of a bundle that was read before, without account_at, detail_at and first_leg. */
void bundle_recall(struct bundle *bundle, RedisModuleString *kept);
/* Makes account_at and detail_at of a bundle that was recalled. */
void bundle_find_texts(struct call *call, struct bundle *bundle);

static inline int64_t bundle_i64(const unsigned char *column, uint32_t i) {
    int64_t number;
    memcpy(&number, column + (size_t)i * sizeof number, sizeof number);
    return number;
}
static inline uint16_t bundle_u16(const unsigned char *column, uint32_t i) {
    uint16_t number;
    memcpy(&number, column + (size_t)i * sizeof number, sizeof number);
    return number;
}
/* Of a transaction. */
static inline const unsigned char *bundle_id(const struct bundle *bundle, uint32_t row) {
    return bundle->ids + (size_t)row * ID_BYTES;
}
static inline uint16_t bundle_slot(const struct bundle *bundle, uint32_t row) {
    return bundle_u16(bundle->slots, row);
}
static inline uint32_t bundle_legs(const struct bundle *bundle, uint32_t row) {
    return bundle->plain ? 2u : bundle->leg_counts[row];
}
static inline int64_t bundle_bound(const struct bundle *bundle, uint32_t row) {
    return bundle->plain ? 0 : bundle_i64(bundle->bounds, row);
}
/* The leg with that number in its transaction. */
static inline uint32_t bundle_leg(const struct bundle *bundle, uint32_t row, uint32_t number) {
    return bundle->plain ? number * bundle->rows + row : bundle->first_leg[row] + number;
}
/* Of a leg: of a plain bundle, payers come before payees. */
static inline uint32_t bundle_value(const struct bundle *bundle, uint32_t leg) {
    return bundle->plain && leg >= bundle->rows ? leg - bundle->rows : leg;
}
static inline int64_t bundle_amount(const struct bundle *bundle, uint32_t leg) {
    return bundle_i64(bundle->amounts, bundle_value(bundle, leg));
}
static inline int64_t bundle_version(const struct bundle *bundle, uint32_t leg) {
    if (!bundle->versions || (bundle->plain && leg >= bundle->rows)) return NO_VERSION;
    return bundle_i64(bundle->versions, leg);
}
static inline const char *bundle_currency(const struct bundle *bundle, uint32_t leg) {
    return (const char *)bundle->currencies + (bundle->one_currency ? 0u : 3u * bundle_value(bundle, leg));
}
static inline uint8_t bundle_effect(const struct bundle *bundle, uint32_t leg) {
    if (bundle->plain) return leg < bundle->rows ? EFFECT_DEBIT : EFFECT_CREDIT;
    return bundle->effects[leg];
}
static inline bool bundle_owns(const struct bundle *bundle, uint8_t owner, uint32_t leg) {
    if (owner == ALL_OWNERS) return true;
    return owner == (bundle->plain ? leg >= bundle->rows : bundle->owners[leg]);
}
static inline const char *bundle_account(const struct bundle *bundle, uint32_t leg) {
    return (const char *)bundle->accounts + bundle->account_at[leg];
}

/* The 8 bytes that are the same for the same payload; as Transaction.fingerprint in
   shard_node/contract/transactions.py. `scratch` has FINGERPRINT_SCRATCH bytes. */
#define FINGERPRINT_SCRATCH (26u + MAX_LEGS * (21u + MAX_ACCOUNT_ID_BYTES) + UINT16_MAX)
uint64_t bundle_fingerprint(const struct bundle *bundle, uint32_t row, unsigned char *scratch);

#endif
