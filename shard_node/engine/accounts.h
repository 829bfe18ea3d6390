/* Accounts: finding, making, limits, names. */
#ifndef TALLYSTICK_ACCOUNTS_H
#define TALLYSTICK_ACCOUNTS_H

#include "state.h"

uint64_t account_hash(const struct state *state, const char *name, uint32_t length);
/* The record's number, or NO_RECORD. */
uint32_t account_find(const struct state *state, const char *name, uint32_t length, uint64_t hash);
/* Only after table_reserve of accounts. Takes memory for `extra` where limits or a long name need it: with_extra says so
   and `extra` is what account_extra_new gave. A system account (slot SYSTEM_SLOT) has minimum -MAX_MINOR by itself. */
uint32_t account_add(struct state *state, const char *name, uint32_t length, uint64_t hash, uint16_t slot,
                     const char currency[3], struct account_extra *extra);
/* Whether such an account needs one; NULL without memory. */
bool account_needs_extra(uint32_t length, int64_t minimum, int64_t maximum_balance, int64_t maximum_transfer);
struct account_extra *account_extra_new(uint32_t length, int64_t minimum, int64_t maximum_balance,
                                        int64_t maximum_transfer);
/* Removes the account at the head of its slot's list, with its extra. */
void account_remove_first(struct state *state, uint16_t slot);

/* A system account begins with its first use: a command that names one which is not there begins it before its first
   change (NO_RECORD without memory), and in its end takes back those of the `begun` ones that nothing happened to. So
   what a command judges has an account, and what it refuses leaves nothing behind. */
uint32_t account_begin_system(struct state *state, const char *name, uint32_t length, uint64_t hash);
void accounts_end_unused(struct state *state, uint32_t begun);
static inline bool is_system_name(const char *name) { return *name == '@'; }
/* Whether it is one of those that the system has, which are "@world:" and a currency. */
bool is_world_name(const char *name, uint32_t length);
/* UTF-8 without NUL: what every archive can store. */
bool is_text(const char *name, uint32_t length);

static inline struct account *account_at(const struct state *state, uint32_t number) {
    return table_record(&state->accounts, number);
}
const struct account_extra *account_extra(const struct account *account); /* NULL for none */
int64_t account_minimum(const struct account *account);
const char *account_name(const struct account *account); /* name_length bytes, no NUL behind them */
static inline bool account_is_system(const struct account *account) { return account->slot == SYSTEM_SLOT; }
static inline uint32_t slot_place(uint16_t slot) { return slot == SYSTEM_SLOT ? SLOTS : slot; }

#endif
