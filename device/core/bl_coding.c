#include "bl_coding.h"

/* --- tables ------------------------------------------------------------------------------------------------------- */

static uint8_t length_in(const uint8_t *lengths, unsigned symbol)
{
    return symbol & 1u ? lengths[symbol / 2u] >> 4 : lengths[symbol / 2u] & 15u;
}

bool bl_coding_make_table(uint8_t *table)
{
    uint8_t lengths[BL_CODE_LENGTHS_BYTES]; /* moved away: they lie where symbols go */
    uint8_t *at = table + BL_CODE_COUNTS_BYTES;
    uint32_t used = 0; /* of the space of codes, in codes of the greatest length */

    memcpy(lengths, bl_coding_lengths(table), sizeof lengths);
    for (unsigned length = 1; length <= BL_MAX_CODE_BITS; length++) {
        uint16_t count = 0;
        for (unsigned symbol = 0; symbol < BL_CODE_SYMBOLS; symbol++) {
            if (length_in(lengths, symbol) == length) {
                *at++ = (uint8_t)symbol;
                count++;
            }
        }
        bl_store_u16(table + 2u * (length - 1u), count);
        used += (uint32_t)count << (BL_MAX_CODE_BITS - length);
    }
    return used == (uint32_t)1 << BL_MAX_CODE_BITS ||
           (at == table + BL_CODE_COUNTS_BYTES + 1 && bl_load_u16(table) == 1);
}

/* The length of a symbol's code in a finished table; 0 if it has none. */
static uint8_t length_of(const uint8_t *table, unsigned symbol)
{
    const uint8_t *at = table + BL_CODE_COUNTS_BYTES;

    for (unsigned length = 1; length <= BL_MAX_CODE_BITS; length++) {
        uint16_t count = bl_load_u16(table + 2u * (length - 1u));
        for (; count > 0; count--) {
            if (*at++ == symbol) {
                return (uint8_t)length;
            }
        }
    }
    return 0;
}

bool bl_coding_table_has(const uint8_t *table, uint16_t offset, const uint8_t *lengths, uint16_t count)
{
    for (unsigned i = 0; i < 2u * count; i++) {
        if (length_in(lengths, i) != length_of(table, 2u * offset + i)) {
            return false;
        }
    }
    return true;
}

/* --- decoding ----------------------------------------------------------------------------------------------------- */

void bl_coding_begin(bl_coding *coding, uint8_t kind, const uint8_t *table, const uint8_t *data, uint16_t length,
                     uint16_t count)
{
    coding->next = data;
    coding->end = data + length;
    coding->table = kind & BL_CODING_CODES ? table : NULL;
    coding->left = count;
    coding->bits = 0;
    coding->bit_count = 0;
    coding->token_left = 0;
    coding->zeros = false;
    coding->runs = (kind & BL_CODING_RUNS) != 0;
}

/* Take one code, from its most significant bit on. `first` is the first code of each length, and `index` its symbol's
 * number. */
static bool take_code(bl_coding *coding, uint8_t *symbol)
{
    const uint8_t *counts = coding->table;
    uint16_t code = 0;
    uint16_t first = 0;
    uint16_t index = 0;

    for (unsigned length = 1; length <= BL_MAX_CODE_BITS; length++) {
        uint16_t count = bl_load_u16(counts);
        if (coding->bit_count == 0) {
            if (coding->next == coding->end) {
                return false;
            }
            coding->bits = *coding->next++;
            coding->bit_count = 8;
        }
        code = (uint16_t)((unsigned)code << 1 | (coding->bits & 1u));
        coding->bits >>= 1;
        coding->bit_count--;
        if ((uint16_t)(code - first) < count) {
            *symbol = coding->table[BL_CODE_COUNTS_BYTES + index + (uint16_t)(code - first)];
            return true;
        }
        counts += 2;
        index = (uint16_t)(index + count);
        first = (uint16_t)(((unsigned)first + count) << 1);
    }
    return false;
}

/* Take `count` bytes that are no zeros of a token. */
static bool take_bytes(bl_coding *coding, uint8_t *to, uint16_t count)
{
    if (coding->table == NULL) {
        if ((size_t)(coding->end - coding->next) < count) {
            return false;
        }
        if (to != NULL) {
            memcpy(to, coding->next, count);
        }
        coding->next += count;
        coding->left = (uint16_t)(coding->left - count);
        return true;
    }
    while (count > 0) {
        uint8_t byte;
        if (!take_code(coding, &byte)) {
            return false;
        }
        if (to != NULL) {
            *to++ = byte;
        }
        coding->left--;
        count--;
    }
    return true;
}

static bool take_token(bl_coding *coding)
{
    uint8_t token;

    if (coding->table != NULL) {
        if (!take_code(coding, &token)) {
            return false;
        }
    } else if (coding->next == coding->end) {
        return false;
    } else {
        token = *coding->next++;
    }
    coding->zeros = token >= BL_MAX_RUN;
    coding->token_left = (uint8_t)((token & (BL_MAX_RUN - 1u)) + 1u);
    return coding->token_left <= coding->left;
}

bool bl_coding_read(bl_coding *coding, uint8_t *to, uint16_t count)
{
    if (!coding->runs) {
        return take_bytes(coding, to, count);
    }
    while (count > 0) {
        uint16_t piece;
        if (coding->token_left == 0 && !take_token(coding)) {
            return false;
        }
        piece = coding->token_left < count ? coding->token_left : count;
        if (!coding->zeros) {
            if (!take_bytes(coding, to, piece)) {
                return false;
            }
        } else {
            if (to != NULL) {
                memset(to, 0, piece);
            }
            coding->left = (uint16_t)(coding->left - piece);
        }
        coding->token_left = (uint8_t)(coding->token_left - piece);
        count = (uint16_t)(count - piece);
        to = to != NULL ? to + piece : NULL;
    }
    return true;
}

bool bl_coding_is_done(const bl_coding *coding)
{
    return coding->left == 0 && coding->next == coding->end;
}
