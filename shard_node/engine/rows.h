/* Frames of the ledger that no bundle stands for: rows, or columns as they came. */
#ifndef TALLYSTICK_ROWS_H
#define TALLYSTICK_ROWS_H

#include "call.h"

struct rows {
    unsigned char *bytes;
    size_t size, used;
    uint32_t count;
};

/* Memory that `count` rows take at most, with so many bytes of details in all. */
size_t rows_memory(uint32_t count, size_t details);
void rows_begin(struct rows *rows, unsigned char *memory, size_t size);
/* A change of an account that is not a leg's: the balance and version after are those that it has now. `fingerprint` and
   `id` are those of the transaction that it goes back to; NULL and 0 for none. */
void rows_add(struct rows *rows, const struct account *account, uint8_t kind, int64_t held_delta,
              const unsigned char *id, uint64_t fingerprint, const char *details, uint16_t details_length);
/* Appends the frame, unless there is no row. */
void rows_append(const struct rows *rows, struct call *call, uint8_t frame_kind);

/* A frame of two fields: names are NUL-terminated. */
struct frame_field {
    const char *name;
    const void *bytes;
    size_t size;
};
void fields_append(struct call *call, uint8_t frame_kind, const struct frame_field *fields, int count,
                   int64_t entries);

#endif
