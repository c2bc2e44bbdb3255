#include "bl_sha256.h"

static const uint32_t round_constants[64] BL_CONST = {
    0x428A2F98u, 0x71374491u, 0xB5C0FBCFu, 0xE9B5DBA5u, 0x3956C25Bu, 0x59F111F1u, 0x923F82A4u, 0xAB1C5ED5u,
    0xD807AA98u, 0x12835B01u, 0x243185BEu, 0x550C7DC3u, 0x72BE5D74u, 0x80DEB1FEu, 0x9BDC06A7u, 0xC19BF174u,
    0xE49B69C1u, 0xEFBE4786u, 0x0FC19DC6u, 0x240CA1CCu, 0x2DE92C6Fu, 0x4A7484AAu, 0x5CB0A9DCu, 0x76F988DAu,
    0x983E5152u, 0xA831C66Du, 0xB00327C8u, 0xBF597FC7u, 0xC6E00BF3u, 0xD5A79147u, 0x06CA6351u, 0x14292967u,
    0x27B70A85u, 0x2E1B2138u, 0x4D2C6DFCu, 0x53380D13u, 0x650A7354u, 0x766A0ABBu, 0x81C2C92Eu, 0x92722C85u,
    0xA2BFE8A1u, 0xA81A664Bu, 0xC24B8B70u, 0xC76C51A3u, 0xD192E819u, 0xD6990624u, 0xF40E3585u, 0x106AA070u,
    0x19A4C116u, 0x1E376C08u, 0x2748774Cu, 0x34B0BCB5u, 0x391C0CB3u, 0x4ED8AA4Au, 0x5B9CCA4Fu, 0x682E6FF3u,
    0x748F82EEu, 0x78A5636Fu, 0x84C87814u, 0x8CC70208u, 0x90BEFFFAu, 0xA4506CEBu, 0xBEF9A3F7u, 0xC67178F2u,
};

static const uint32_t initial_state[8] BL_CONST = {
    0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au, 0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u,
};

static uint32_t rotate(uint32_t value, unsigned count)
{
    return (value >> count) | (value << (32u - count));
}

static uint32_t load_big_endian(const uint8_t *bytes)
{
    return ((uint32_t)bytes[0] << 24) | ((uint32_t)bytes[1] << 16) | ((uint32_t)bytes[2] << 8) | bytes[3];
}

/* The message schedule is kept as a ring of 16 words: 64 bytes of stack instead of 256. */
static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[16];
    uint32_t v[8];

    for (unsigned i = 0; i < 16; i++) {
        w[i] = load_big_endian(block + 4u * i);
    }
    memcpy(v, state, sizeof v);
    for (unsigned i = 0; i < 64; i++) {
        if (i >= 16) {
            uint32_t w15 = w[(i + 1u) & 15u];
            uint32_t w2 = w[(i + 14u) & 15u];
            w[i & 15u] += (rotate(w15, 7) ^ rotate(w15, 18) ^ (w15 >> 3)) + w[(i + 9u) & 15u] +
                          (rotate(w2, 17) ^ rotate(w2, 19) ^ (w2 >> 10));
        }
        uint32_t t1 = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                      ((v[4] & v[5]) ^ (~v[4] & v[6])) + bl_const_u32(&round_constants[i]) + w[i & 15u];
        uint32_t t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                      ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        for (unsigned k = 7; k > 0; k--) {
            v[k] = v[k - 1u];
        }
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

void bl_sha256_init(bl_sha256 *hash)
{
    for (unsigned i = 0; i < 8; i++) {
        hash->state[i] = bl_const_u32(&initial_state[i]);
    }
    hash->length = 0;
}

void bl_sha256_update(bl_sha256 *hash, const uint8_t *data, size_t length)
{
    while (length > 0) {
        size_t used = hash->length & 63u;
        size_t piece = 64u - used;
        if (used == 0 && length >= 64) {
            compress(hash->state, data);
        } else {
            piece = piece < length ? piece : length;
            memcpy(hash->block + used, data, piece);
            if (used + piece == 64) {
                compress(hash->state, hash->block);
            }
        }
        hash->length += (uint32_t)piece;
        data += piece;
        length -= piece;
    }
}

void bl_sha256_final(bl_sha256 *hash, uint8_t digest[BL_HASH_BYTES])
{
    size_t used = hash->length & 63u;

    hash->block[used++] = 0x80;
    if (used > 56) {
        memset(hash->block + used, 0, 64u - used);
        compress(hash->state, hash->block);
        used = 0;
    }
    memset(hash->block + used, 0, 60u - used);
    for (unsigned i = 0; i < 4; i++) {
        hash->block[60u + i] = (uint8_t)((hash->length << 3) >> (24u - 8u * i));
    }
    compress(hash->state, hash->block);
    for (unsigned i = 0; i < 32; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4u] >> (24u - 8u * (i & 3u)));
    }
}
