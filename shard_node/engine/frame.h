/* The ledger's frame of a call that carries bundles; see FRAME_HEAD in shard_node/contract/layout.py. */
#ifndef TALLYSTICK_FRAME_H
#define TALLYSTICK_FRAME_H

#include "work.h"

struct frame {
    struct call *call;
    RedisModuleString **fields; /* names and values; the first two are the head's */
    uint32_t parts;
    int64_t entries;
    uint8_t kind;
};

/* Bytes of the arena, for so many bundles. */
size_t frame_memory(uint32_t bundles);
void frame_begin(struct call *call, struct frame *frame, enum frame_kind kind, uint32_t bundles);
/* Adds a bundle, if something of it was carried out: its columns are packed, so this comes after the answer's were
   read. work->decided says which transactions. */
void frame_add(struct frame *frame, struct work *work);
/* Appends it to the ledger, if it has a part. */
void frame_end(struct frame *frame);

#endif
