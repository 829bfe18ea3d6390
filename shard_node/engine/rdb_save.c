/* Saving a shard as part of a snapshot; see rdb_layout.h. */
#include <string.h>

#include "rdb.h"
#include "rdb_layout.h"

static const char *const part_names[SLOT_PARTS] = PART_NAMES;

/* Records gather in a block, which is written when it is full. A record larger than that is a block of its own. */
struct saving {
    RedisModuleIO *io;
    unsigned char block[BLOCK_BYTES + MAX_RECORD_BYTES];
    size_t used;
};

static void section(struct saving *saving, const char *name, size_t record_size, uint64_t count) {
    RM_SaveStringBuffer(saving->io, name, strlen(name));
    RM_SaveUnsigned(saving->io, record_size);
    RM_SaveUnsigned(saving->io, count);
}

static void flush(struct saving *saving) {
    if (saving->used) RM_SaveStringBuffer(saving->io, (const char *)saving->block, saving->used);
    saving->used = 0;
}

static void save_parts(struct saving *saving, const struct state *state) {
    for (enum slot_part part = 0; part < SLOT_PARTS; part++) {
        section(saving, part_names[part], record_head_size(part), part_table(state, part)->live);
        for (uint32_t place = 0; place < SLOT_PLACES; place++) {
            uint16_t slot = place == SLOTS ? SYSTEM_SLOT : (uint16_t)place;
            for (link at = part_first(state, part, slot); at; at = part_next(state, part, at)) {
                saving->used += record_write(state, part, at, FOR_SNAPSHOT, saving->block + saving->used);
                if (saving->used >= BLOCK_BYTES) flush(saving);
            }
        }
        flush(saving);
    }
}

static unsigned char *put(unsigned char *to, const void *bytes, size_t size) {
    if (size) memcpy(to, bytes, size);
    return to + size;
}

static void save_meta(struct saving *saving, const struct state *state) {
    const struct meta *meta = &state->meta;
    const struct generation *younger = &state->generations[state->current], *older = previous_generation(state);
    struct saved_meta saved = {
        .epoch = meta->epoch,
        .window_ms = meta->window_ms,
        .backlog = meta->backlog,
        .backlog_limit = meta->backlog_limit,
        .horizon_ms = meta->horizon_ms,
        .attempt_horizon_ms = meta->attempt_horizon_ms,
        .used_us = meta->used_us,
        .rotated_ms = meta->rotated_ms,
        .frame_ms = meta->frame_ms,
        .frame_sequence = meta->frame_sequence,
        .last_tick = meta->last_tick,
        .serial = meta->serial,
        .calls = meta->calls,
        .alarms = meta->alarms,
        .expired_finishes = meta->expired_finishes,
        .archived_number = meta->archived_number,
        .archived_ms = meta->archived_ms,
        .archived_sequence = meta->archived_sequence,
        .newest_id_ms = {younger->newest_id_ms, older->newest_id_ms},
        .newest_attempt_ms = {younger->newest_attempt_ms, older->newest_attempt_ms},
        .shard_length = meta->shard_length,
        .archived_head_length = meta->archived_head_length,
    };
    section(saving, NAME_META, sizeof saved, 1);
    unsigned char *end = put(saving->block, &saved, sizeof saved);
    end = put(end, meta->shard, meta->shard_length);
    end = put(end, meta->archived_head, meta->archived_head_length);
    saving->used = (size_t)(end - saving->block);
    flush(saving);
}

/* Codes and legs of a whole bundle fit into a block; the bundle itself may be larger, and is a string of its own. */
_Static_assert(2 * MAX_BATCH + 257 * 256 + sizeof(struct saved_commit) < BLOCK_BYTES + MAX_RECORD_BYTES, "columns");

static void save_attempts(struct saving *saving, const struct state *state) {
    uint32_t number;
    section(saving, NAME_ATTEMPTS, sizeof(struct saved_attempt), state->attempts.live);
    for (struct table_walk walk = {0}; (number = table_walk(&state->attempts, &walk)) != NO_RECORD;) {
        const struct attempt *attempt = attempt_at(state, number);
        size_t decider_length, bundle_length;
        const char *decider = RM_StringPtrLen(attempt->decider, &decider_length);
        const char *bundle = RM_StringPtrLen(attempt->bundle, &bundle_length);
        struct saved_attempt saved = {
            .serial = attempt->serial,
            .since_ms = attempt->since_ms,
            .bundle_length = (uint32_t)bundle_length,
            .rows = attempt->rows,
            .decider_length = (uint16_t)decider_length,
            .owner = attempt->owner,
            .reserving = attempt->reserving,
        };
        memcpy(saved.id, attempt->id, sizeof saved.id);
        unsigned char *end = put(saving->block, &saved, sizeof saved);
        end = put(end, attempt->codes, attempt->rows);
        end = put(end, attempt->legs, attempt->rows);
        end = put(end, decider, decider_length);
        saving->used = (size_t)(end - saving->block);
        flush(saving);
        RM_SaveStringBuffer(saving->io, bundle, bundle_length);
    }
}

static void save_commits(struct saving *saving, const struct state *state) {
    uint32_t number;
    section(saving, NAME_COMMITS, sizeof(struct saved_commit), state->commits.live);
    for (struct table_walk walk = {0}; (number = table_walk(&state->commits, &walk)) != NO_RECORD;) {
        const struct commit *commit = commit_at(state, number);
        size_t bundle_length;
        const char *bundle = RM_StringPtrLen(commit->bundle, &bundle_length);
        struct saved_commit saved = {
            .serial = commit->serial,
            .tick = commit->tick,
            .since_ms = commit->since_ms,
            .bundle_length = (uint32_t)bundle_length,
            .rows = commit->rows,
            .participant_count = commit->participant_count,
        };
        memcpy(saved.id, commit->id, sizeof saved.id);
        unsigned char *end = saving->block + sizeof saved;
        end = put(end, commit->codes, commit->rows);
        end = put(end, commit->legs, commit->rows);
        for (int i = 0; i < commit->participant_count; i++) *end++ = commit->participants[i].finished;
        unsigned char *names = end;
        for (int i = 0; i < commit->participant_count; i++) {
            *end++ = commit->participants[i].name_length;
            end = put(end, commit->participants[i].name, commit->participants[i].name_length);
        }
        saved.names_length = (uint16_t)(end - names);
        memcpy(saving->block, &saved, sizeof saved);
        saving->used = (size_t)(end - saving->block);
        flush(saving);
        RM_SaveStringBuffer(saving->io, bundle, bundle_length);
    }
}

static void save_ended(struct saving *saving, const struct state *state) {
    const struct generation *generations[] = {&state->generations[state->current], previous_generation(state)};
    section(saving, NAME_ENDED, sizeof(struct saved_ended),
            (uint64_t)generations[0]->ended.live + generations[1]->ended.live);
    for (uint8_t older = 0; older < 2; older++) {
        for (link at = generations[older]->ended_head; at;) {
            const struct ended *ended = table_record(&generations[older]->ended, at - 1u);
            struct saved_ended saved = {.state = ended->state, .generation = older};
            memcpy(saved.id, ended->id, sizeof saved.id);
            put(saving->block + saving->used, &saved, sizeof saved);
            saving->used += sizeof saved;
            if (saving->used >= BLOCK_BYTES) flush(saving);
            at = ended->next;
        }
    }
    flush(saving);
}

void rdb_save(RedisModuleIO *io, void *value) {
    const struct state *state = value;
    struct saving saving;
    saving.io = io;
    saving.used = 0;
    /* What later sections need comes first: attempts name accounts, holds are pinned by attempts. */
    save_meta(&saving, state);
    save_parts(&saving, state);
    save_attempts(&saving, state);
    save_commits(&saving, state);
    save_ended(&saving, state);
    section(&saving, NAME_END, 0, 0);
}
