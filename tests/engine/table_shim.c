/* What tests need to call the engine's table and hashes from Python. */
#include <stdlib.h>

#include "hash.h"
#include "outcomes.h"
#include "redis_api.h"
#include "table.h"

/* So many requests for memory are granted, then none; -1 for no limit. */
long granted = -1;

static void *allocate(size_t size) {
    if (!granted) return NULL;
    if (granted > 0) granted--;
    return malloc(size);
}

void *(*RM_TryAlloc)(size_t) = allocate;
void (*RM_Free)(void *) = free;

uint64_t shim_fold(const void *bytes, size_t size, uint64_t seed);
uint64_t shim_fold(const void *bytes, size_t size, uint64_t seed) { return fold(bytes, size, seed); }

uint64_t shim_scoped_hash(uint64_t seed, const unsigned char *id, uint16_t slot);
uint64_t shim_scoped_hash(uint64_t seed, const unsigned char *id, uint16_t slot) {
    const struct state state = {.seed = seed};
    return scoped_hash(&state, id, slot);
}

struct table *shim_new(uint32_t chunk_bits, uint32_t segments);
struct table *shim_new(uint32_t chunk_bits, uint32_t segments) {
    struct table *table = malloc(sizeof *table);
    if (!table_init(table, 16, chunk_bits, segments)) abort();
    return table;
}

/* Records of 16 bytes have a key in their second half. */
void shim_add(struct table *table, uint64_t hash, uint64_t key);
void shim_add(struct table *table, uint64_t hash, uint64_t key) {
    memcpy((unsigned char *)table_record(table, table_add(table, hash)) + 8, &key, sizeof key);
}

uint32_t shim_find(const struct table *table, uint64_t hash, uint64_t key);
uint32_t shim_find(const struct table *table, uint64_t hash, uint64_t key) {
    uint32_t place = (uint32_t)hash, number;
    while ((number = table_next(table_segment(table, hash), hash, &place)) != NO_RECORD)
        if (!memcmp((const unsigned char *)table_record(table, number) + 8, &key, sizeof key)) break;
    return number;
}

uint32_t shim_count(const struct table *table);
uint32_t shim_count(const struct table *table) {
    uint32_t count = 0;
    for (struct table_walk walk = {0}; table_walk(table, &walk) != NO_RECORD;) count++;
    return count;
}
