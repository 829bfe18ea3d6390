/* Made by `python -m shard_node.contract.header` from the contract: change it there. */
#ifndef TALLYSTICK_LAYOUT_H
#define TALLYSTICK_LAYOUT_H

#include <stdint.h>

#define LAYOUT_VERSION 1
#define ID_BYTES 16
#define ATTEMPT_BYTES 16
#define DECISION_BYTES 18
#define SETTLEMENT_BYTES 17
#define FINGERPRINT_BYTES 8
#define NO_VERSION (-1)
#define SYSTEM_SLOT 65535
#define NO_ACCOUNT 255
#define ALL_OWNERS 255
#define MAX_ATTEMPTS 1024
#define MAX_ID_AHEAD_MS 600000
#define PARTICIPANT_REFUSALS 1901308
#define MAX_BATCH 8192
#define MAX_LEGS 100
#define MAX_ACCOUNT_ID_BYTES 64
#define MAX_MINOR INT64_C(9007199254740991)
#define NO_BALANCE INT64_C(9007199254740992)
#define BUNDLE_PLAIN 1
#define BUNDLE_ONE_CURRENCY 2
#define BUNDLE_VERSIONS 4

enum code {
    CODE_COMMITTED = 1,
    CODE_INSUFFICIENT_FUNDS = 2,
    CODE_CURRENCY_MISMATCH = 3,
    CODE_ACCOUNT_FROZEN = 4,
    CODE_ACCOUNT_CLOSED = 5,
    CODE_BALANCE_LIMIT = 6,
    CODE_ACCOUNT_NOT_FOUND = 7,
    CODE_TRANSACTION_ID_REUSED = 8,
    CODE_TRANSACTION_ID_EXPIRED = 9,
    CODE_ABORTED = 10,
    CODE_ACCOUNT_EXISTS = 11,
    CODE_INVALID_ARGUMENT = 12,
    CODE_OUTCOME_UNKNOWN = 13,
    CODE_RESOURCE_EXHAUSTED = 14,
    CODE_TRANSACTION_NOT_FOUND = 15,
    CODE_REFUND_EXCEEDS_PURCHASE = 16,
    CODE_PURCHASE_NOT_FOUND = 17,
    CODE_HOLD_NOT_ACTIVE = 18,
    CODE_CAPTURE_EXCEEDS_HOLD = 19,
    CODE_TRANSFER_LIMIT = 20,
    CODE_ACCOUNT_NOT_EMPTY = 21,
    CODE_ACCOUNT_IN_USE = 22,
    CODE_VALID = 23,
    CODE_VERSION_MISMATCH = 24,
    CODE_PREPARED = 32,
    CODE_FINISHED = 34,
    CODE_DROPPED = 35,
    CODE_SETTLED = 36,
    CODE_MISSING_LEG = 37,
    CODE_STALE_EPOCH = 38,
    CODE_ELSEWHERE = 39,
    CODE_ENDED = 40,
    CODE_BUSY = 41,
    CODE_ABANDONED = 42,
    CODE_SKIPPED = 43,
    CODE_ATTEMPT_EXPIRED = 44,
};

enum kind {
    KIND_TRANSFER = 1,
    KIND_DEPOSIT = 2,
    KIND_WITHDRAWAL = 3,
    KIND_PURCHASE = 4,
    KIND_REFUND = 5,
    KIND_CAPTURE = 6,
    KIND_JOURNAL = 7,
    KIND_HOLD = 8,
    KIND_VOID = 9,
    KIND_EXPIRY = 10,
    KIND_FREEZE = 11,
    KIND_UNFREEZE = 12,
    KIND_CLOSE = 13,
    KIND_OPEN = 14,
};

enum effect {
    EFFECT_CREDIT = 1,
    EFFECT_DEBIT = 2,
    EFFECT_REFUND = 3,
    EFFECT_CAPTURE = 4,
    EFFECT_HOLD = 5,
    EFFECT_VOID = 6,
};

enum account_state {
    ACCOUNT_OPEN = 0,
    ACCOUNT_FROZEN = 1,
    ACCOUNT_CLOSED = 2,
};

enum frame_kind {
    FRAME_POST = 1,
    FRAME_DECIDE = 2,
    FRAME_FINISH = 3,
    FRAME_OPEN = 4,
    FRAME_STATE = 5,
    FRAME_EXPIRE = 6,
};

enum record_kind {
    RECORD_ACCOUNT = 1,
    RECORD_OUTCOME = 2,
    RECORD_PURCHASE = 3,
    RECORD_HOLD = 4,
    RECORD_REFUND = 5,
};

struct __attribute__((packed)) bundle_head {
    uint8_t version;
    uint8_t flags;
    uint16_t transactions;
    uint16_t legs;
    uint32_t account_bytes;
    uint32_t detail_bytes;
    uint16_t principal_bytes;
};
_Static_assert(sizeof(struct bundle_head) == 16, "bundle_head");

struct __attribute__((packed)) account_record {
    int64_t available;
    int64_t held;
    int64_t version;
    int64_t minimum;
    int64_t maximum_balance;
    int64_t maximum_transfer;
    int64_t reserved;
    uint16_t slot;
    uint8_t state;
    unsigned char currency[3];
};
_Static_assert(sizeof(struct account_record) == 62, "account_record");

struct __attribute__((packed)) outcome_record {
    uint8_t code;
    uint8_t leg;
    unsigned char decided_ms[6];
    int64_t amount;
    unsigned char currency[3];
    unsigned char fingerprint[8];
};
_Static_assert(sizeof(struct outcome_record) == 27, "outcome_record");

struct __attribute__((packed)) frame_head {
    uint8_t version;
    uint8_t kind;
    uint16_t parts;
};
_Static_assert(sizeof(struct frame_head) == 4, "frame_head");

struct __attribute__((packed)) entry_head {
    unsigned char id[16];
    unsigned char fingerprint[8];
    int64_t delta;
    int64_t held_delta;
    int64_t balance;
    int64_t version;
    unsigned char currency[3];
    uint8_t kind;
    uint8_t leg;
    uint8_t leg_count;
    uint8_t account_length;
    uint8_t counterparty_length;
    uint16_t details_length;
};
_Static_assert(sizeof(struct entry_head) == 66, "entry_head");

struct __attribute__((packed)) list_head {
    uint16_t count;
};
_Static_assert(sizeof(struct list_head) == 2, "list_head");

struct __attribute__((packed)) chunk_head {
    uint8_t version;
    uint16_t slot;
    uint32_t records;
};
_Static_assert(sizeof(struct chunk_head) == 7, "chunk_head");

struct __attribute__((packed)) moved_account {
    int64_t available;
    int64_t held;
    int64_t coming;
    int64_t version;
    int64_t minimum;
    int64_t maximum_balance;
    int64_t maximum_transfer;
    uint16_t slot;
    uint8_t state;
    unsigned char currency[3];
    uint8_t name_length;
};
_Static_assert(sizeof(struct moved_account) == 63, "moved_account");

struct __attribute__((packed)) moved_outcome {
    unsigned char id[16];
    uint64_t fingerprint;
    int64_t amount;
    unsigned char tick[6];
    uint16_t slot;
    uint16_t currency;
    uint8_t code;
    uint8_t leg;
    uint8_t generation;
};
_Static_assert(sizeof(struct moved_outcome) == 45, "moved_outcome");

struct __attribute__((packed)) moved_purchase {
    unsigned char id[16];
    uint16_t slot;
    uint8_t generation;
    uint8_t payer_length;
    uint8_t payee_length;
};
_Static_assert(sizeof(struct moved_purchase) == 21, "moved_purchase");

struct __attribute__((packed)) moved_hold {
    unsigned char id[16];
    uint64_t fingerprint;
    int64_t amount;
    int64_t expires_ms;
    uint16_t slot;
    uint16_t details_length;
    uint8_t account_length;
    uint8_t pinned;
};
_Static_assert(sizeof(struct moved_hold) == 46, "moved_hold");

struct __attribute__((packed)) moved_refund {
    unsigned char id[16];
    uint16_t slot;
    int64_t sum;
};
_Static_assert(sizeof(struct moved_refund) == 26, "moved_refund");

#endif
