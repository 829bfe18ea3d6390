/* Loading a shard from a snapshot; see rdb_layout.h. All that is read is checked like what a client sends. */
#include <string.h>

#include "bundle.h"
#include "rdb.h"
#include "rdb_layout.h"

static const char *const part_names[SLOT_PARTS] = PART_NAMES;

struct loading {
    RedisModuleIO *io;
    struct state *state;
    struct saved_meta meta;
    /* Of the section that is read. */
    size_t record_size;
    uint64_t count;
    const char *wrong; /* why it cannot be loaded */
};

static bool fail(struct loading *loading, const char *why) {
    if (!loading->wrong) loading->wrong = why;
    return false;
}

/* The next string of the file; NULL when it ends too early. To be freed. */
static unsigned char *load_string(struct loading *loading, struct reader *reader) {
    size_t size = 0;
    unsigned char *bytes = (unsigned char *)RM_LoadStringBuffer(loading->io, &size);
    if (RM_IsIOError(loading->io)) {
        RM_Free(bytes);
        bytes = NULL;
    }
    if (!bytes) {
        fail(loading, "it ends too early");
        return NULL;
    }
    *reader = (struct reader){.at = bytes, .end = bytes + size};
    return bytes;
}

/* A record's struct, of which an older engine wrote less. */
static bool take_head(struct loading *loading, struct reader *reader, void *head, size_t size) {
    memset(head, 0, size);
    if (loading->record_size > size) return fail(loading, "its records are larger: a newer engine wrote it");
    return reader_take(reader, head, loading->record_size) || fail(loading, "a record ends too early");
}

static bool load_record(struct loading *loading, struct reader *reader) {
    struct record record;
    struct state *state = loading->state;
    if (!record_read(state, reader, loading->record_size, &record)) return fail(loading, "a malformed record");
    const char *refusal = record_refusal(state, &record);
    if (refusal) return fail(loading, refusal);
    if (!record_memory(&record) || !record_reserve(state, &record, &record.hash, 1u)) {
        record_free(&record);
        return fail(loading, "no memory");
    }
    record_add(state, &record, FOR_SNAPSHOT);
    return true;
}

static bool load_ended_record(struct loading *loading, struct reader *reader) {
    struct saved_ended saved;
    struct state *state = loading->state;
    if (!take_head(loading, reader, &saved, sizeof saved)) return false;
    if (saved.state < ENDED_FINISHED || saved.state > ENDED_ABANDONED || saved.generation > 1)
        return fail(loading, "a malformed ended attempt");
    struct generation *generation = &state->generations[saved.generation ? !state->current : state->current];
    uint64_t hash = attempt_hash(state, saved.id);
    if (!table_reserve(&generation->ended, &hash, 1u)) return fail(loading, "no memory");
    ended_add(state, generation, saved.id, saved.state);
    return true;
}

/* Blocks until all records of the section were read. */
static bool load_blocks(struct loading *loading, bool (*load)(struct loading *, struct reader *)) {
    while (loading->count) {
        struct reader reader;
        unsigned char *block = load_string(loading, &reader);
        if (!block) return false;
        bool good = reader.at < reader.end || fail(loading, "an empty block");
        for (; good && reader.at < reader.end; loading->count--)
            good = (loading->count || fail(loading, "more records than it says")) && load(loading, &reader);
        RM_Free(block);
        if (!good) return false;
    }
    return true;
}

static bool load_meta(struct loading *loading) {
    struct reader reader;
    struct meta *meta = &loading->state->meta;
    struct saved_meta *saved = &loading->meta;
    if (loading->count != 1) return fail(loading, "more than one shard");
    unsigned char *block = load_string(loading, &reader);
    if (!block) return false;
    bool good = take_head(loading, &reader, saved, sizeof *saved) && saved->shard_length <= SHARD_NAME_BYTES &&
                saved->archived_head_length <= sizeof meta->archived_head &&
                reader_take(&reader, meta->shard, saved->shard_length) &&
                reader_take(&reader, meta->archived_head, saved->archived_head_length) && reader.at == reader.end;
    RM_Free(block);
    return good || fail(loading, "a malformed shard");
}

/* The numbers come last: adding records has changed some. */
static void finish_meta(const struct loading *loading) {
    const struct saved_meta *saved = &loading->meta;
    struct state *state = loading->state;
    struct meta *meta = &state->meta;
    meta->shard_length = saved->shard_length;
    meta->archived_head_length = saved->archived_head_length;
    meta->epoch = saved->epoch;
    meta->window_ms = saved->window_ms;
    meta->backlog = saved->backlog;
    meta->backlog_limit = saved->backlog_limit;
    meta->horizon_ms = saved->horizon_ms;
    meta->attempt_horizon_ms = saved->attempt_horizon_ms;
    meta->used_us = saved->used_us;
    meta->rotated_ms = saved->rotated_ms;
    meta->frame_ms = saved->frame_ms;
    meta->frame_sequence = saved->frame_sequence;
    meta->last_tick = saved->last_tick;
    meta->serial = saved->serial;
    meta->calls = saved->calls;
    meta->alarms = saved->alarms;
    meta->expired_finishes = saved->expired_finishes;
    meta->archived_number = saved->archived_number;
    meta->archived_ms = saved->archived_ms;
    meta->archived_sequence = saved->archived_sequence;
    for (int older = 0; older < 2; older++) {
        struct generation *generation = &state->generations[older ? !state->current : state->current];
        generation->newest_id_ms = saved->newest_id_ms[older];
        generation->newest_attempt_ms = saved->newest_attempt_ms[older];
    }
    if (meta->shard_length) meta_set_fence(meta);
}

/* A kept bundle and the call that it is read with. */
struct kept_bundle {
    struct call call;
    struct bundle bundle;
    RedisModuleString *string;
};

static bool load_bundle(struct loading *loading, size_t size, uint32_t rows, struct kept_bundle *kept) {
    struct reader reader;
    uint32_t bundle_rows = 0, legs = 0;
    *kept = (struct kept_bundle){.call = {.state = loading->state}};
    unsigned char *bytes = load_string(loading, &reader);
    if (!bytes) return false;
    bool good = (size_t)(reader.end - bytes) == size && !bundle_measure(bytes, size, &bundle_rows, &legs) &&
                bundle_rows == rows && arena_begin(&kept->call, bundle_memory(rows, legs));
    if (good) {
        kept->string = RM_CreateString(NULL, (const char *)bytes, size);
        bytes = (RM_Free(bytes), NULL);
        const char *kept_bytes = RM_StringPtrLen(kept->string, &size);
        good = !bundle_read(&kept->call, &kept->bundle, (const unsigned char *)kept_bytes, size);
    }
    RM_Free(bytes);
    return good || fail(loading, "a malformed bundle");
}

/* The accounts of an attempt's own legs, which every prepared transaction must have. */
static bool find_accounts(const struct state *state, const struct bundle *bundle, const struct attempt *attempt) {
    uint32_t own = 0;
    for (uint32_t row = 0; row < bundle->rows; row++) {
        for (uint32_t number = 0; number < bundle_legs(bundle, row); number++) {
            uint32_t leg = bundle_leg(bundle, row, number);
            if (!bundle_owns(bundle, attempt->owner, leg)) continue;
            uint8_t length = bundle->account_lengths[leg];
            const char *name = bundle_account(bundle, leg);
            uint32_t account = account_find(state, name, length, account_hash(state, name, length));
            if (account == NO_RECORD && attempt->codes[row] == CODE_PREPARED) return false;
            attempt->accounts[own++] = account;
        }
    }
    return true;
}

static bool keep_attempt(struct loading *loading, struct reader *reader, const struct saved_attempt *saved,
                         const struct kept_bundle *kept) {
    struct state *state = loading->state;
    struct attempt attempt = {.since_ms = saved->since_ms, .owner = saved->owner, .reserving = saved->reserving};
    uint32_t legs = 0;
    memcpy(attempt.id, saved->id, sizeof attempt.id);
    for (uint32_t leg = 0; leg < kept->bundle.leg_count; leg++) legs += bundle_owns(&kept->bundle, saved->owner, leg);
    uint64_t hash = attempt_hash(state, saved->id);
    if (!saved->owner || saved->owner == ALL_OWNERS || !legs || attempt_find(state, saved->id) != NO_RECORD)
        return fail(loading, "a malformed attempt");
    if (!attempt_room(&attempt, saved->rows, legs) || !table_reserve(&state->attempts, &hash, 1u)) {
        attempt_room_free(&attempt);
        return fail(loading, "no memory");
    }
    const unsigned char *decider;
    bool good = reader_take(reader, attempt.codes, saved->rows) && reader_take(reader, attempt.legs, saved->rows) &&
                (decider = reader_skip(reader, saved->decider_length)) && reader->at == reader->end &&
                find_accounts(state, &kept->bundle, &attempt);
    if (!good) {
        attempt_room_free(&attempt);
        return fail(loading, "a malformed attempt");
    }
    attempt.bundle = kept->string;
    attempt.decider = RM_CreateString(NULL, (const char *)decider, saved->decider_length);
    attempt_at(state, attempt_keep(state, &attempt))->serial = saved->serial;
    RM_FreeString(NULL, attempt.decider);
    return true;
}

static bool load_attempt(struct loading *loading) {
    struct reader reader;
    struct saved_attempt saved;
    struct kept_bundle kept = {0};
    unsigned char *block = load_string(loading, &reader);
    if (!block) return false;
    bool good = take_head(loading, &reader, &saved, sizeof saved) &&
                load_bundle(loading, saved.bundle_length, saved.rows, &kept) &&
                keep_attempt(loading, &reader, &saved, &kept);
    if (kept.string) RM_FreeString(NULL, kept.string);
    RM_Free(block);
    return good;
}

static bool keep_commit(struct loading *loading, struct reader *reader, const struct saved_commit *saved,
                        const struct kept_bundle *kept) {
    struct state *state = loading->state;
    struct commit commit = {.tick = saved->tick, .since_ms = saved->since_ms, .bundle = kept->string};
    memcpy(commit.id, saved->id, sizeof commit.id);
    const unsigned char *codes = reader_skip(reader, saved->rows), *legs = reader_skip(reader, saved->rows);
    const unsigned char *finished = reader_skip(reader, saved->participant_count);
    const unsigned char *names = reader_skip(reader, saved->names_length);
    bool good = codes && legs && finished && names && reader->at == reader->end && saved->participant_count &&
                participants_count(names, saved->names_length) == saved->participant_count &&
                saved->participant_count < ALL_OWNERS && commit_find(state, saved->id) == NO_RECORD &&
                commit_find_tick(state, saved->tick) == NO_RECORD;
    if (!good) return fail(loading, "a malformed commit");
    uint64_t hash = attempt_hash(state, saved->id), tick = tick_hash(saved->tick);
    if (!commit_room(&commit, saved->rows, names, saved->names_length) ||
        !table_reserve(&state->commits, &hash, 1u) || !table_reserve(&state->commit_ticks, &tick, 1u)) {
        commit_room_free(&commit);
        return fail(loading, "no memory");
    }
    memcpy(commit.codes, codes, saved->rows);
    memcpy(commit.legs, legs, saved->rows);
    for (int i = 0; i < saved->participant_count; i++) {
        commit.participants[i].finished = finished[i];
        if (finished[i]) commit.unfinished--;
    }
    if (!commit.unfinished) {
        commit_room_free(&commit);
        return fail(loading, "a commit that all have finished");
    }
    commit_at(state, commit_keep(state, &commit))->serial = saved->serial;
    return true;
}

static bool load_commit(struct loading *loading) {
    struct reader reader;
    struct saved_commit saved;
    struct kept_bundle kept = {0};
    unsigned char *block = load_string(loading, &reader);
    if (!block) return false;
    bool good = take_head(loading, &reader, &saved, sizeof saved) &&
                load_bundle(loading, saved.bundle_length, saved.rows, &kept) &&
                keep_commit(loading, &reader, &saved, &kept);
    if (kept.string) RM_FreeString(NULL, kept.string);
    RM_Free(block);
    return good;
}

static bool load_each(struct loading *loading, bool (*load)(struct loading *)) {
    for (; loading->count; loading->count--)
        if (!load(loading)) return false;
    return true;
}

/* True until the last section was read. */
static bool load_section(struct loading *loading, bool *ended) {
    struct reader reader;
    unsigned char *bytes = load_string(loading, &reader);
    if (!bytes) return false;
    char name[32] = {0};
    size_t length = (size_t)(reader.end - bytes);
    memcpy(name, bytes, length < sizeof name ? length : sizeof name - 1u);
    RM_Free(bytes);
    loading->record_size = RM_LoadUnsigned(loading->io);
    loading->count = RM_LoadUnsigned(loading->io);
    if (RM_IsIOError(loading->io)) return fail(loading, "it ends too early");
    *ended = !strcmp(name, NAME_END);
    if (*ended) return true;
    if (!strcmp(name, NAME_META)) return load_meta(loading);
    if (!strcmp(name, NAME_ATTEMPTS)) return load_each(loading, load_attempt);
    if (!strcmp(name, NAME_COMMITS)) return load_each(loading, load_commit);
    if (!strcmp(name, NAME_ENDED)) return load_blocks(loading, load_ended_record);
    for (enum slot_part part = 0; part < SLOT_PARTS; part++) {
        if (strcmp(name, part_names[part])) continue;
        if (!loading->record_size) return fail(loading, "records of no size");
        return load_blocks(loading, load_record);
    }
    return fail(loading, "it has a section that this engine does not know: a newer engine wrote it");
}

/* Accounts were put before those that came earlier; names are listed in the order in which they were. */
static void restore_order(struct state *state) {
    for (uint32_t place = 0; place < SLOT_PLACES; place++) {
        link reversed = 0;
        for (link at = state->account_heads[place]; at;) {
            struct account *account = account_at(state, at - 1u);
            link next = account->next;
            account->next = reversed;
            reversed = at;
            at = next;
        }
        state->account_heads[place] = reversed;
    }
}

static bool pins_are_kept(struct loading *loading) {
    uint32_t number;
    for (struct table_walk walk = {0}; (number = table_walk(&loading->state->holds, &walk)) != NO_RECORD;) {
        const struct hold *hold = hold_at(loading->state, number);
        if (hold_is_pinned(hold) && attempt_find(loading->state, hold->pinned_by) == NO_RECORD)
            return fail(loading, "an attempt that is not there has pinned a hold");
    }
    return true;
}

void *rdb_load(RedisModuleIO *io, int version) {
    struct loading loading = {.io = io};
    bool ended = false;
    if (version > RDB_VERSION) {
        RM_LogIOError(io, "warning", "the shard cannot be loaded: a newer engine wrote it (version %d)", version);
        return NULL;
    }
    loading.state = state_new();
    bool good = loading.state || fail(&loading, "no memory");
    while (good && !ended) good = load_section(&loading, &ended);
    if (good) good = loading.meta.shard_length || fail(&loading, "it does not say which shard it is");
    if (good) good = pins_are_kept(&loading);
    if (!good) {
        RM_LogIOError(io, "warning", "the shard cannot be loaded: %s", loading.wrong);
        if (loading.state) state_free(loading.state);
        return NULL;
    }
    finish_meta(&loading);
    restore_order(loading.state);
    return loading.state;
}
