#include "bl_kernels.h"

/* A kernel over rows: `PROLOGUE` runs once, `ROW` for each input that is not zero with `value` the input, `codes` its
 * row of packed weights, `columns` the outputs and `acc` their accumulators. */
#define BL_KERNEL(name, PROLOGUE, ROW)                                                                    \
    static void name(const bl_weights *weights, uint32_t row, const float *x, uint32_t count, float *acc_) \
    {                                                                                                     \
        float *BL_RESTRICT acc = acc_;                                                                    \
        const uint32_t columns = weights->tensor.columns;                                                 \
        const uint32_t row_bytes = weights->tensor.row_bytes;                                             \
        const uint8_t *BL_RESTRICT codes = weights->image + weights->tensor.data + row * row_bytes;       \
        PROLOGUE                                                                                          \
        for (uint32_t i = 0; i < count; i++, codes += row_bytes) {                                        \
            const float value = x[i];                                                                     \
            if (value == 0.0f) {                                                                          \
                continue;                                                                                 \
            }                                                                                             \
            ROW                                                                                           \
        }                                                                                                 \
    }

#define BL_TABLE const float *BL_RESTRICT table = weights->table;

/* binary32: rows are read in place; tensors' data are aligned to 4 bytes. */
BL_KERNEL(rows_fp32, , {
    const float *BL_RESTRICT w = (const float *)(const void *)codes;
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * w[o];
    }
})

/* Codes of 8 bits, decoded by a table. */
BL_KERNEL(rows_table8, BL_TABLE, {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * table[codes[o]];
    }
})

/* Codes of 4, 2 and 1 bits: whole bytes first, then what is left. */
#define BL_PACKED_ROW(per_byte, bits)                                                        \
    {                                                                                        \
        uint32_t o = 0;                                                                      \
        const uint8_t *next = codes;                                                         \
        for (; o + (per_byte) <= columns; o += (per_byte), next++) {                         \
            const unsigned byte = *next;                                                     \
            for (unsigned k = 0; k < (per_byte); k++) {                                      \
                acc[o + k] += value * table[(byte >> (k * (bits))) & ((1u << (bits)) - 1u)]; \
            }                                                                                \
        }                                                                                    \
        for (unsigned k = 0; o < columns; o++, k++) {                                        \
            acc[o] += value * table[((unsigned)*next >> (k * (bits))) & ((1u << (bits)) - 1u)]; \
        }                                                                                    \
    }
BL_KERNEL(rows_table4, BL_TABLE, BL_PACKED_ROW(2u, 4u))
BL_KERNEL(rows_table2, BL_TABLE, BL_PACKED_ROW(4u, 2u))
BL_KERNEL(rows_table1, BL_TABLE, BL_PACKED_ROW(8u, 1u))

/* A code of up to 25 bits anywhere in a row. Reads up to three bytes beyond it: the image's CRC,
 * or a chunk's margin, is there at least. */
#define BL_WINDOW \
    const unsigned width = weights->tensor.format.width; \
    const uint32_t mask = ((uint32_t)1 << width) - 1u;

static inline uint32_t window_code(const uint8_t *row, uint32_t index, unsigned width, uint32_t mask)
{
    const uint32_t bit = index * width;

    return (bl_load_u32(row + (bit >> 3)) >> (bit & 7u)) & mask;
}

BL_KERNEL(rows_table_window, BL_TABLE BL_WINDOW, {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * table[window_code(codes, o, width, mask)];
    }
})

/* Floats whose normal codes are normal in binary32: these are shifted into place, as are zeros, of which pruned weights
 * have many; the few others are decoded. */
#define BL_FLOAT                                                                     \
    const bl_format *format = &weights->tensor.format;                               \
    const unsigned magnitude_bits = (unsigned)format->exponent_bits + format->mantissa_bits; \
    const uint32_t magnitude = ((uint32_t)1 << magnitude_bits) - 1u;                 \
    const uint32_t least_normal = (uint32_t)1 << format->mantissa_bits;              \
    const unsigned to_sign = 31u - magnitude_bits;                                   \
    const unsigned to_mantissa = 23u - format->mantissa_bits;                        \
    const uint32_t rebias = (uint32_t)(127 - format->bias) << 23;
#define BL_FLOAT_ELEMENT(code)                                                                               \
    (((code) & magnitude) >= least_normal                                                                    \
     ? bl_float_from_bits((((code) & magnitude) << to_mantissa) + rebias + (((code) & ~magnitude) << to_sign)) \
     : ((code) & magnitude) == 0 ? bl_float_from_bits(((code) & ~magnitude) << to_sign)                       \
                                 : bl_format_decode(format, (code), 0))

BL_KERNEL(rows_float16, BL_FLOAT, {
    for (uint32_t o = 0; o < columns; o++) {
        const uint32_t code = bl_load_u16(codes + 2u * o);
        acc[o] += value * BL_FLOAT_ELEMENT(code);
    }
})
BL_KERNEL(rows_float_window, BL_FLOAT BL_WINDOW, {
    for (uint32_t o = 0; o < columns; o++) {
        const uint32_t code = window_code(codes, o, width, mask);
        acc[o] += value * BL_FLOAT_ELEMENT(code);
    }
})

/* Integers without fraction bits: flipping the sign bit and subtracting it extends the sign. */
#define BL_INTEGER \
    const int32_t sign = weights->tensor.format.flags & BL_TENSOR_SIGNED ? (int32_t)1 << (width - 1u) : 0;

BL_KERNEL(rows_int8, , {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * (float)(int8_t)codes[o];
    }
})
BL_KERNEL(rows_int16, , {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * (float)(int16_t)bl_load_u16(codes + 2u * o);
    }
})
BL_KERNEL(rows_integer_window, BL_WINDOW BL_INTEGER, {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * (float)(((int32_t)window_code(codes, o, width, mask) ^ sign) - sign);
    }
})
BL_KERNEL(rows_affine_window, BL_WINDOW BL_INTEGER, {
    for (uint32_t o = 0; o < columns; o++) {
        const int32_t number = ((int32_t)window_code(codes, o, width, mask) ^ sign) - sign;
        acc[o] += value * (float)(number - bl_image_zero_point(weights->image, &weights->tensor, o));
    }
})

/* Everything else, trits among it: each code is read and decoded by itself. */
BL_KERNEL(rows_any, , {
    bl_format_reader reader;
    bl_format_reader_init(&reader, &weights->tensor.format, codes);
    for (uint32_t o = 0; o < columns; o++) {
        const uint32_t code = bl_format_read(&reader);
        acc[o] += value * bl_format_decode(&weights->tensor.format, code,
                                           bl_image_zero_point(weights->image, &weights->tensor, o));
    }
})
BL_KERNEL(rows_table_any, BL_TABLE, {
    bl_format_reader reader;
    bl_format_reader_init(&reader, &weights->tensor.format, codes);
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * table[bl_format_read(&reader)];
    }
})

static bool is_binary32(const bl_format *f)
{
    return f->kind == BL_FORMAT_FLOAT && f->exponent_bits == 8 && f->mantissa_bits == 23 && f->width == 32 &&
           f->bias == 127 && f->top == BL_TOP_IEEE && (f->flags & BL_TENSOR_SUBNORMALS);
}

static bl_kernel *table_kernel(const bl_format *f)
{
    if (f->packing == BL_PACKING_TRITS) {
        return rows_table_any;
    }
    switch (f->width) {
    case 8: return rows_table8;
    case 4: return rows_table4;
    case 2: return rows_table2;
    case 1: return rows_table1;
    default: return rows_table_window;
    }
}

static bl_kernel *direct_kernel(const bl_format *f)
{
    bool is_signed = (f->flags & BL_TENSOR_SIGNED) != 0;

    if (is_binary32(f)) {
        return rows_fp32;
    }
    if (f->kind == BL_FORMAT_FLOAT && f->bias <= 127 && f->width <= 25) {
        return f->width == 16 ? rows_float16 : rows_float_window;
    }
    if (f->kind == BL_FORMAT_INTEGER && f->bias == 0) {
        if (f->flags & BL_TENSOR_AFFINE) {
            return rows_affine_window;
        }
        return is_signed && f->width == 8 ? rows_int8 : is_signed && f->width == 16 ? rows_int16 : rows_integer_window;
    }
    return rows_any;
}

void bl_kernels_prepare(bl_weights *weights, const uint8_t *image, const bl_image_tensor *tensor, float *table)
{
    const bl_format *f = &tensor->format;

    weights->image = image;
    weights->tensor = *tensor;
    weights->table = NULL;
    if (table == NULL || ((f->flags & BL_TENSOR_AFFINE) && tensor->groups > 1)) {
        weights->kernel = direct_kernel(f);
        return;
    }
    bl_format_fill_table(f, bl_image_zero_point(image, tensor, 0), table);
    weights->table = table;
    weights->kernel = table_kernel(f);
}
