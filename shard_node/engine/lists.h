/* Lists of names, as `open`, `set_state` and `accounts` get them; see shard_node/contract/layout.py. */
#ifndef TALLYSTICK_LISTS_H
#define TALLYSTICK_LISTS_H

#include "call.h"

struct list {
    uint32_t count;
    const unsigned char *columns; /* what precedes the lengths */
    const unsigned char *lengths;
    const unsigned char *names; /* one after the other */
};

/* Reads an argument as a list with columns of so many bytes a name, and checks its lengths. NULL, or what is wrong. */
const char *list_read(const struct call *call, int argument, uint32_t column_bytes, struct list *list);

#endif
