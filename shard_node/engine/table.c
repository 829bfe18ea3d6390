/* See table.h. */
#include "table.h"

#include <assert.h>
#include <string.h>

#include "redis_api.h"

#define FIRST_PLACES 8u

/* At most seven places of eight are used. */
static bool is_full(const struct segment *segment, uint32_t more) {
    uint64_t places = segment->places ? (uint64_t)segment->mask + 1u : 0u;
    return ((uint64_t)segment->used + more) * 8u > places * 7u;
}

static void put(struct segment *segment, uint64_t entry) {
    uint32_t at = (uint32_t)(entry >> 32) & segment->mask;
    while (segment->places[at]) at = (at + 1u) & segment->mask;
    segment->places[at] = entry;
}

static bool grow(struct segment *segment, uint32_t more) {
    uint64_t places = segment->places ? (uint64_t)segment->mask + 1u : FIRST_PLACES;
    while (((uint64_t)segment->used + more) * 8u > places * 7u) places *= 2u;
    struct segment grown = {.mask = (uint32_t)places - 1u, .used = segment->used};
    grown.places = RM_TryAlloc((size_t)places * sizeof *grown.places);
    if (!grown.places) return false;
    memset(grown.places, 0, (size_t)places * sizeof *grown.places);
    if (segment->places) {
        for (uint32_t i = 0; i <= segment->mask; i++)
            if (segment->places[i]) put(&grown, segment->places[i]);
        RM_Free(segment->places);
    }
    *segment = grown;
    return true;
}

bool table_init(struct table *table, uint32_t record_size, uint32_t chunk_bits, uint32_t segment_count) {
    assert(record_size >= sizeof(uint32_t));
    assert(segment_count && !(segment_count & (segment_count - 1u)));
    *table = (struct table){.record_size = record_size, .chunk_bits = chunk_bits, .first_free = NO_RECORD};
    table->segments = RM_TryAlloc(segment_count * sizeof *table->segments);
    if (!table->segments) return false;
    memset(table->segments, 0, segment_count * sizeof *table->segments);
    table->segment_count = segment_count;
    return true;
}

void table_free(struct table *table) {
    for (uint32_t i = 0; i < table->chunk_count; i++) RM_Free(table->chunks[i]);
    RM_Free(table->chunks);
    if (table->segments)
        for (uint32_t i = 0; i < table->segment_count; i++) RM_Free(table->segments[i].places);
    RM_Free(table->segments);
    *table = (struct table){.first_free = NO_RECORD};
}

static bool reserve_records(struct table *table, uint32_t count) {
    uint64_t needed = (uint64_t)table->live + count;
    uint64_t per_chunk = UINT64_C(1) << table->chunk_bits;
    if (needed >= NO_RECORD - per_chunk) return false;
    while ((uint64_t)table->chunk_count * per_chunk < needed) {
        unsigned char *chunk = RM_TryAlloc((size_t)per_chunk * table->record_size);
        if (!chunk) return false;
        unsigned char **chunks = RM_TryAlloc(((size_t)table->chunk_count + 1u) * sizeof *chunks);
        if (!chunks) {
            RM_Free(chunk);
            return false;
        }
        if (table->chunk_count) memcpy(chunks, table->chunks, table->chunk_count * sizeof *chunks);
        RM_Free(table->chunks);
        chunks[table->chunk_count++] = chunk;
        table->chunks = chunks;
    }
    return true;
}

bool table_reserve(struct table *table, const uint64_t *hashes, uint32_t count) {
    if (!reserve_records(table, count)) return false;
    /* Two passes over the segments instead of a count a segment: `used` itself counts what will come. */
    bool enough = true;
    uint32_t done = 0;
    for (; done < count && enough; done++) {
        struct segment *segment = table_segment(table, hashes[done]);
        if (is_full(segment, 1u)) enough = grow(segment, 1u);
        if (enough) segment->used++;
    }
    uint32_t counted = enough ? done : done - 1u;
    for (uint32_t i = 0; i < counted; i++) table_segment(table, hashes[i])->used--;
    return enough;
}

uint32_t table_add(struct table *table, uint64_t hash) {
    uint32_t number = table->first_free;
    if (number != NO_RECORD) {
        memcpy(&table->first_free, table_record(table, number), sizeof table->first_free);
    } else {
        number = table->used++;
        assert(number >> table->chunk_bits < table->chunk_count);
    }
    memset(table_record(table, number), 0, table->record_size);
    struct segment *segment = table_segment(table, hash);
    assert(!is_full(segment, 1u));
    put(segment, (uint64_t)(uint32_t)hash << 32 | (number + 1u));
    segment->used++;
    table->live++;
    return number;
}

void table_remove(struct table *table, uint64_t hash, uint32_t number) {
    struct segment *segment = table_segment(table, hash);
    uint64_t entry = (uint64_t)(uint32_t)hash << 32 | (number + 1u);
    uint32_t hole = (uint32_t)hash & segment->mask;
    assert(segment->places);
    while (segment->places[hole] != entry) {
        assert(segment->places[hole]);
        hole = (hole + 1u) & segment->mask;
    }
    /* What lies behind moves up, unless it is at its own place or between that and the hole. */
    for (uint32_t at = (hole + 1u) & segment->mask; segment->places[at]; at = (at + 1u) & segment->mask) {
        uint32_t home = (uint32_t)(segment->places[at] >> 32) & segment->mask;
        if (((at - home) & segment->mask) >= ((at - hole) & segment->mask)) {
            segment->places[hole] = segment->places[at];
            hole = at;
        }
    }
    segment->places[hole] = 0;
    segment->used--;
    table->live--;
    memcpy(table_record(table, number), &table->first_free, sizeof table->first_free);
    table->first_free = number;
}

size_t table_memory(const struct table *table) {
    size_t bytes = table->segment_count * sizeof *table->segments + table->chunk_count * sizeof *table->chunks;
    bytes += ((size_t)table->chunk_count << table->chunk_bits) * table->record_size;
    for (uint32_t i = 0; i < table->segment_count; i++)
        if (table->segments[i].places) bytes += ((size_t)table->segments[i].mask + 1u) * sizeof(uint64_t);
    return bytes;
}
