/* 64 bits of some bytes. Deterministic: fingerprints and digests are kept and compared across processes.
   shard_node/contract/layout.py has the same functions in Python, and a test compares the two. */
#ifndef TALLYSTICK_HASH_H
#define TALLYSTICK_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FOLD_K1 UINT64_C(0xA0761D6478BD642F)
#define FOLD_K2 UINT64_C(0xE7037ED1A0B428DB)

/* Both halves of the product, xor-ed. */
static inline uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Words of eight bytes, the last one filled up with zeros. The sum keeps a product of zero from wiping out what came
   before. */
static inline uint64_t fold(const void *data, size_t size, uint64_t seed) {
    const unsigned char *bytes = data;
    uint64_t h = mix((seed ^ (uint64_t)size) ^ FOLD_K1, FOLD_K2);
    for (; size >= sizeof h; size -= sizeof h, bytes += sizeof h) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        h = mix(h ^ word ^ FOLD_K1, FOLD_K2) + h;
    }
    if (size) {
        uint64_t word = 0;
        memcpy(&word, bytes, size);
        h = mix(h ^ word ^ FOLD_K1, FOLD_K2) + h;
    }
    return mix(h ^ FOLD_K2, FOLD_K1);
}

#endif
