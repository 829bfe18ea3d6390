/* See lists.h. */
#include "lists.h"

#include <string.h>

const char *list_read(const struct call *call, int argument, uint32_t column_bytes, struct list *list) {
    size_t size, names = 0;
    const unsigned char *bytes = call_bytes(call, argument, &size);
    struct list_head head;
    if (size < sizeof head) return "it ends too early";
    memcpy(&head, bytes, sizeof head);
    if (!head.count || head.count > MAX_BATCH) return "its number of names";
    size_t fixed = sizeof head + (size_t)head.count * (column_bytes + 1u);
    if (size < fixed) return "it ends too early";
    *list = (struct list){
        .count = head.count,
        .columns = bytes + sizeof head,
        .lengths = bytes + fixed - head.count,
        .names = bytes + fixed,
    };
    for (uint32_t i = 0; i < list->count; i++) {
        if (!list->lengths[i] || list->lengths[i] > MAX_ACCOUNT_ID_BYTES) return "the length of a name";
        names += list->lengths[i];
    }
    return names == size - fixed ? NULL : "its lengths and its names differ";
}
