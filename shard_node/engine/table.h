/* Records of one fixed size, found by a hash.

   Records lie in chunks that never move, so a record's number and its address stay what they are until it is removed.
   The index has 8 bytes a place: the low half of the record's hash (its tag) and the record's number plus one, 0 for
   an empty place. It is cut into segments by the high half of the hash; each segment is an open-addressing table with
   linear probing that grows by itself, so that no growth holds the shard up for longer than one segment takes.

   A look-up waits for memory twice, for the place and for the record. Who works on many rows fetches ahead:
   table_fetch_place for all rows of a block, then table_fetch_record, then table_find.

   Hashes are seeded by the process and never kept: after a restart the index is made anew. */
#ifndef TALLYSTICK_TABLE_H
#define TALLYSTICK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NO_RECORD UINT32_MAX

struct segment {
    uint64_t *places;
    uint32_t mask; /* places less one; 0 before the first record */
    uint32_t used;
};

struct table {
    unsigned char **chunks;
    struct segment *segments;
    uint32_t record_size;   /* bytes, 4 or more: a removed record's first 4 bytes link the free ones */
    uint32_t chunk_bits;    /* a chunk has 1 << chunk_bits records */
    uint32_t segment_count; /* a power of two */
    uint32_t chunk_count;
    uint32_t used;  /* records ever taken; those below are live or free */
    uint32_t live;
    uint32_t first_free; /* NO_RECORD for none */
};

/* All of these return false, and change nothing, when memory cannot be had. */
bool table_init(struct table *table, uint32_t record_size, uint32_t chunk_bits, uint32_t segment_count);
/* Room for `count` more records of these hashes: then so many table_add cannot fail. */
bool table_reserve(struct table *table, const uint64_t *hashes, uint32_t count);

void table_free(struct table *table);
/* The number of a new record, zeroed, that is found by that hash. Only after table_reserve. */
uint32_t table_add(struct table *table, uint64_t hash);
void table_remove(struct table *table, uint64_t hash, uint32_t number);
/* Bytes of memory. */
size_t table_memory(const struct table *table);

static inline void *table_record(const struct table *table, uint32_t number) {
    uint32_t chunk = number >> table->chunk_bits, place = number & ((1u << table->chunk_bits) - 1u);
    return table->chunks[chunk] + (size_t)place * table->record_size;
}

static inline struct segment *table_segment(const struct table *table, uint64_t hash) {
    return &table->segments[(uint32_t)(hash >> 32) & (table->segment_count - 1u)];
}

static inline void table_fetch_place(const struct table *table, uint64_t hash) {
    const struct segment *segment = table_segment(table, hash);
    if (segment->places) __builtin_prefetch(&segment->places[(uint32_t)hash & segment->mask]);
}

/* Walks over the records whose tag is that of the hash: start with *place = the tag, go on until NO_RECORD. The caller
   compares the records themselves. */
static inline uint32_t table_next(const struct segment *segment, uint64_t hash, uint32_t *place) {
    if (!segment->places) return NO_RECORD;
    for (;;) {
        uint64_t entry = segment->places[*place & segment->mask];
        if (!entry) return NO_RECORD;
        (*place)++;
        if ((uint32_t)(entry >> 32) == (uint32_t)hash) return (uint32_t)entry - 1u;
    }
}

static inline void table_fetch_record(const struct table *table, uint64_t hash) {
    uint32_t place = (uint32_t)hash;
    uint32_t number = table_next(table_segment(table, hash), hash, &place);
    if (number != NO_RECORD) __builtin_prefetch(table_record(table, number), 1);
}

/* Walks over all records, in no order that means anything: start with zeros, go on until NO_RECORD. Nothing may be added
   or removed meanwhile. */
struct table_walk {
    uint32_t segment, place;
};

static inline uint32_t table_walk(const struct table *table, struct table_walk *walk) {
    for (; walk->segment < table->segment_count; walk->segment++, walk->place = 0) {
        const struct segment *segment = &table->segments[walk->segment];
        while (segment->places && walk->place <= segment->mask) {
            uint64_t entry = segment->places[walk->place++];
            if (entry) return (uint32_t)entry - 1u;
        }
    }
    return NO_RECORD;
}

#endif
