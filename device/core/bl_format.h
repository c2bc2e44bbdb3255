/* Number formats: from a stored code to its element, exactly (docs/arithmetic.md, "Elements"). */
#ifndef BL_FORMAT_H
#define BL_FORMAT_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint8_t kind;          /* BL_FORMAT_... */
    uint8_t width;         /* bits of a code, 1 to 32; ternary: 2 */
    uint8_t exponent_bits; /* float: 1 to 8 */
    uint8_t mantissa_bits; /* float: 0 to 23 */
    uint8_t flags;         /* BL_TENSOR_... */
    uint8_t top;           /* float: BL_TOP_... */
    uint8_t packing;       /* BL_PACKING_... */
    int16_t bias;          /* float: exponent bias; integer: fraction bits */
} bl_format;

/* Is this a format of docs/arithmetic.md, with every finite element a binary32 number? Returns BL_OK, or
 * BL_BAD_TENSOR_FORMAT with the byte offset of the offending field in a tensor record in `field`. */
bl_status bl_format_check(const bl_format *format, uint32_t *field);

/* May some code of the format be no finite number? */
bool bl_format_has_holes(const bl_format *format);

/* Is `code` a finite number? Bits above the width must be zero. */
bool bl_format_is_finite(const bl_format *format, uint32_t code);

/* The least and the greatest integer code, as numbers: the range of zero points. */
int32_t bl_format_integer_min(const bl_format *format);
int32_t bl_format_integer_max(const bl_format *format);

/* The element of a finite code, without scale; exact. `zero_point` counts for affine integers only. Zeros of float
 * formats keep their sign. The format must have passed bl_format_check; ternary codes are the 2-bit ones. */
float bl_format_decode(const bl_format *format, uint32_t code, int32_t zero_point);

/* The elements of all 2^width codes into `table`; codes that are no finite number give +0. Widths to 16. */
void bl_format_fill_table(const bl_format *format, int32_t zero_point, float *table);

/* Bytes of a row of `count` codes. */
uint32_t bl_format_row_bytes(const bl_format *format, uint32_t count);

/* Reads the codes of a row one after another. Trits come out as 2-bit ternary codes. */
typedef struct {
    const uint8_t *next; /* the next byte that was not read */
    uint8_t width;
    uint8_t held;   /* bits left of the byte before (bits), or digits left of it (trits) */
    uint8_t rest;   /* those bits, or digits */
    bool trits;
} bl_format_reader;

void bl_format_reader_init(bl_format_reader *reader, const bl_format *format, const uint8_t *row);

static inline uint32_t bl_format_read(bl_format_reader *reader)
{
    uint32_t code = reader->rest;
    uint8_t shift = reader->held;
    uint8_t packed = 0;

    if (reader->trits) {
        uint8_t digit;
        if (shift == 0) {
            code = *reader->next++;
            shift = BL_TRITS_PER_BYTE;
        }
        digit = (uint8_t)(code % 3u);
        reader->rest = (uint8_t)(code / 3u);
        reader->held = (uint8_t)(shift - 1u);
        return (digit + 3u) & 3u; /* 0, 1, 2 to -1, 0, 1 in two bits */
    }
    if (shift >= reader->width) {
        reader->rest = (uint8_t)(code >> reader->width);
        reader->held = (uint8_t)(shift - reader->width);
    } else {
        while (shift < reader->width) {
            packed = *reader->next++;
            code |= (uint32_t)packed << shift;
            shift = (uint8_t)(shift + 8u);
        }
        reader->held = (uint8_t)(shift - reader->width);
        reader->rest = (uint8_t)((unsigned)packed >> (8u - reader->held));
    }
    return reader->width < 32 ? code & (((uint32_t)1 << reader->width) - 1u) : code;
}

/* Are bits or digits set where none may be? True after the last code of a row if its padding is not zero, and after any
 * code of a row of trits if its byte is above 242. */
static inline bool bl_format_stray(const bl_format_reader *reader)
{
    return reader->rest != 0 && (!reader->trits || reader->held == 0);
}

/* Code `index` of a row. */
uint32_t bl_format_code_at(const bl_format *format, const uint8_t *row, uint32_t index);

#ifdef __cplusplus
}
#endif

#endif /* BL_FORMAT_H */
