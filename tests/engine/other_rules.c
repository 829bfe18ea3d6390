/* An engine of other rules: no leg can be carried out, and all ids that are not remembered have expired. The linker puts
   these in the place of the engine's own functions (--wrap). */
#include "deciding.h"

uint8_t __wrap_credit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version);
uint8_t __wrap_debit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version,
                             bool reserving);
uint8_t __wrap_leg_refusal(const struct state *state, const struct leg *leg, int64_t now_ms, bool reserving,
                           const unsigned char **pinned_by);
bool __wrap_deciding_expires(struct deciding *deciding, const struct work *work, uint32_t row);

uint8_t __wrap_credit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version) {
    (void)account, (void)amount, (void)currency, (void)version;
    return CODE_ACCOUNT_FROZEN;
}

uint8_t __wrap_debit_refusal(const struct account *account, int64_t amount, const char *currency, int64_t version,
                             bool reserving) {
    (void)account, (void)amount, (void)currency, (void)version, (void)reserving;
    return CODE_ACCOUNT_FROZEN;
}

uint8_t __wrap_leg_refusal(const struct state *state, const struct leg *leg, int64_t now_ms, bool reserving,
                           const unsigned char **pinned_by) {
    (void)state, (void)leg, (void)now_ms, (void)reserving, (void)pinned_by;
    return CODE_ACCOUNT_FROZEN;
}

bool __wrap_deciding_expires(struct deciding *deciding, const struct work *work, uint32_t row) {
    (void)deciding, (void)work, (void)row;
    return true;
}
