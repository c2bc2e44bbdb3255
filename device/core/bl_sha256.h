/* SHA-256 (FIPS 180-4), streaming. */
#ifndef BL_SHA256_H
#define BL_SHA256_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint32_t state[8];
    uint32_t length; /* bytes taken so far; at most 2^29 - 1, more than any image has */
    uint8_t block[64];
} bl_sha256;

void bl_sha256_init(bl_sha256 *hash);
void bl_sha256_update(bl_sha256 *hash, const uint8_t *data, size_t length);

/* Write the 32 bytes of the digest; the state is spent. */
void bl_sha256_final(bl_sha256 *hash, uint8_t digest[BL_HASH_BYTES]);

#ifdef __cplusplus
}
#endif

#endif /* BL_SHA256_H */
