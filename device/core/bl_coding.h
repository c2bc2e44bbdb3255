/* Decodes coded data (docs/protocol.md, "Coded data"): runs of zeros, canonical Huffman codes, or both. */
#ifndef BL_CODING_H
#define BL_CODING_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A table of codes: how many there are of each length from 1 to 15 (u16 each), then the symbols in the order of their
 * codes. So a code is decoded bit by bit, as in Mark Adler's puff.c, with no more memory than its symbols need. */
#define BL_CODE_COUNTS_BYTES (2 * BL_MAX_CODE_BITS)
#define BL_CODE_TABLE_BYTES (BL_CODE_COUNTS_BYTES + BL_CODE_SYMBOLS)

/* What a port that decodes codes has for them: a table for weights and one for pixels. */
#define BL_CODE_TABLES_BYTES (2 * BL_CODE_TABLE_BYTES)

/* Where the BL_CODE_LENGTHS_BYTES lengths of a table gather before it is made: within the table. */
static inline uint8_t *bl_coding_lengths(uint8_t *table)
{
    return table + BL_CODE_TABLE_BYTES - BL_CODE_LENGTHS_BYTES;
}

/* Make a table of the lengths that lie in it. Returns false if they are no complete prefix code, nor a single symbol of
 * length 1; the table must then not be used. */
bool bl_coding_make_table(uint8_t *table);

/* Was a table made of lengths that have these `count` bytes at `offset`? offset + count is at most
 * BL_CODE_LENGTHS_BYTES. */
bool bl_coding_table_has(const uint8_t *table, uint16_t offset, const uint8_t *lengths, uint16_t count);

/* The decoding of one frame. It keeps no bytes, so it can stop anywhere and go on elsewhere. */
typedef struct {
    const uint8_t *next;  /* coded bytes that were not taken yet */
    const uint8_t *end;
    const uint8_t *table; /* NULL: bytes are no codes */
    uint16_t left;        /* decoded bytes still to come */
    uint8_t bits;         /* of the byte under way, those not taken yet; the next one is the least significant */
    uint8_t bit_count;
    uint8_t token_left;   /* bytes of the token under way still to come */
    bool zeros;           /* ... which are zeros */
    bool runs;            /* bytes are those of tokens */
} bl_coding;

/* Begin to decode the `length` bytes of `data`, which stay the caller's, to `count` bytes. `coding` is made of
 * BL_CODING_...; 0: the bytes as they are. `table` is read with BL_CODING_CODES alone. */
void bl_coding_begin(bl_coding *coding, uint8_t kind, const uint8_t *table, const uint8_t *data, uint16_t length,
                     uint16_t count);

/* Decode the next `count` bytes, at most coding->left, to `to`, or pass over them if `to` is NULL. Returns false if that
 * cannot be done: then up to `count` bytes of `to` were written. */
bool bl_coding_read(bl_coding *coding, uint8_t *to, uint16_t count);

/* Is everything decoded, and no byte left over? */
bool bl_coding_is_done(const bl_coding *coding);

#ifdef __cplusplus
}
#endif

#endif /* BL_CODING_H */
