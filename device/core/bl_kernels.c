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

/* Any other width or packing, decoded by a table. */
BL_KERNEL(rows_table, BL_TABLE, {
    bl_format_reader reader;
    bl_format_reader_init(&reader, &weights->tensor.format, codes);
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * table[bl_format_read(&reader)];
    }
})

/* int8 without zero point, no table: one conversion each. */
BL_KERNEL(rows_int8, , {
    for (uint32_t o = 0; o < columns; o++) {
        acc[o] += value * (float)(int8_t)codes[o];
    }
})

/* Everything: each code is decoded as it is read. */
BL_KERNEL(rows_any, , {
    bl_format_reader reader;
    bl_format_reader_init(&reader, &weights->tensor.format, codes);
    for (uint32_t o = 0; o < columns; o++) {
        const uint32_t code = bl_format_read(&reader);
        acc[o] += value * bl_format_decode(&weights->tensor.format, code,
                                           bl_image_zero_point(weights->image, &weights->tensor, o));
    }
})

static bool is_binary32(const bl_format *f)
{
    return f->kind == BL_FORMAT_FLOAT && f->exponent_bits == 8 && f->mantissa_bits == 23 && f->width == 32 &&
           f->bias == 127 && f->top == BL_TOP_IEEE && (f->flags & BL_TENSOR_SUBNORMALS);
}

void bl_kernels_prepare(bl_weights *weights, const uint8_t *image, const bl_image_tensor *tensor, float *table)
{
    const bl_format *f = &tensor->format;
    bool affine = (f->flags & BL_TENSOR_AFFINE) != 0;

    weights->image = image;
    weights->tensor = *tensor;
    weights->table = NULL;
    weights->kernel = rows_any;
    if (is_binary32(f)) {
        weights->kernel = rows_fp32;
    } else if (f->kind == BL_FORMAT_INTEGER && f->width == 8 && f->bias == 0 && (f->flags & BL_TENSOR_SIGNED) &&
               !affine && table == NULL) {
        weights->kernel = rows_int8;
    } else if (table != NULL && !(affine && tensor->groups > 1)) {
        bl_format_fill_table(f, bl_image_zero_point(image, tensor, 0), table);
        weights->table = table;
        weights->kernel = rows_table;
        if (f->packing == BL_PACKING_BITS) {
            switch (f->width) {
            case 8: weights->kernel = rows_table8; break;
            case 4: weights->kernel = rows_table4; break;
            case 2: weights->kernel = rows_table2; break;
            case 1: weights->kernel = rows_table1; break;
            default: break;
            }
        }
    }
}
