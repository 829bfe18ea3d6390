/* How a shard lies in a snapshot.

   A value is a list of sections, each a name, the size of its records before their texts, how many records there are,
   and blocks of them until that many were read; the section "end" is the last. A record whose size has grown since is
   read from an older file with zeros in what it lacked. A file with larger records, or with a section that this engine
   does not know, is a newer engine's: it is refused, for what it says would be lost. */
#ifndef TALLYSTICK_RDB_LAYOUT_H
#define TALLYSTICK_RDB_LAYOUT_H

#include "records.h"

#define BLOCK_BYTES (64u * 1024u)
#define NAME_META "meta"
#define NAME_ATTEMPTS "attempts"
#define NAME_COMMITS "commits"
#define NAME_ENDED "ended"
#define NAME_END "end"

/* In the order of enum slot_part. */
#define PART_NAMES \
    {"accounts", "purchases", "older purchases", "outcomes", "older outcomes", "holds", "refunds"}

/* Then the shard's name and the archive's head. Fields may be added at the end. */
struct __attribute__((packed)) saved_meta {
    int64_t epoch, window_ms, backlog, backlog_limit, horizon_ms, attempt_horizon_ms, used_us, rotated_ms;
    uint64_t frame_ms, frame_sequence, last_tick, serial, calls, alarms, expired_finishes;
    uint64_t archived_number, archived_ms, archived_sequence;
    int64_t newest_id_ms[2], newest_attempt_ms[2]; /* of the younger and the older generation */
    uint16_t shard_length;
    uint8_t archived_head_length;
};

/* Then codes, legs, the decider and the bundle. */
struct __attribute__((packed)) saved_attempt {
    unsigned char id[ATTEMPT_BYTES];
    uint64_t serial;
    int64_t since_ms;
    uint32_t bundle_length;
    uint16_t rows, decider_length;
    uint8_t owner, reserving;
};

/* Then codes, legs, of each participant whether it has finished, the names (each with its length) and the bundle. */
struct __attribute__((packed)) saved_commit {
    unsigned char id[ATTEMPT_BYTES];
    uint64_t serial, tick;
    int64_t since_ms;
    uint32_t bundle_length;
    uint16_t rows, names_length;
    uint8_t participant_count;
};

struct __attribute__((packed)) saved_ended {
    unsigned char id[ATTEMPT_BYTES];
    uint8_t state, generation;
};

#endif
