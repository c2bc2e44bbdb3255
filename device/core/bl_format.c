#include "bl_format.h"

/* Byte offsets of the fields of a tensor record (docs/model.md). */
enum { AT_KIND = 0, AT_WIDTH = 1, AT_EXPONENT = 2, AT_MANTISSA = 3, AT_FLAGS = 4, AT_TOP = 5, AT_PACKING = 6, AT_BIAS = 8 };

static bl_status refuse(uint32_t *field, uint32_t offset)
{
    *field = offset;
    return BL_BAD_TENSOR_FORMAT;
}

/* Every element is a multiple of 2^(1 - bias - M) and below 2^(top exponent + 1): a binary32 number if these two are in
 * binary32's range, as there are no more than 24 significant bits. */
static bl_status check_float(const bl_format *f, uint32_t *field)
{
    int32_t top;

    if (f->exponent_bits < 1 || f->exponent_bits > BL_MAX_EXPONENT_BITS) {
        return refuse(field, AT_EXPONENT);
    }
    if (f->mantissa_bits > BL_MAX_MANTISSA_BITS) {
        return refuse(field, AT_MANTISSA);
    }
    if (f->flags & BL_TENSOR_AFFINE) {
        return refuse(field, AT_FLAGS);
    }
    if (f->width != (f->flags & BL_TENSOR_SIGNED ? 1u : 0u) + f->exponent_bits + f->mantissa_bits) {
        return refuse(field, AT_WIDTH);
    }
    if (f->top > BL_TOP_FINITE) {
        return refuse(field, AT_TOP);
    }
    top = ((int32_t)1 << f->exponent_bits) - 1 - f->bias;
    if (f->top == BL_TOP_IEEE || (f->top == BL_TOP_FN && f->mantissa_bits == 0)) {
        top--;
    }
    if (top > 127 || 1 - f->bias - f->mantissa_bits < -149) {
        return refuse(field, AT_BIAS);
    }
    return BL_OK;
}

static bl_status check_integer(const bl_format *f, uint32_t *field)
{
    int32_t magnitude_bits = f->width;

    if (f->width < BL_MIN_INTEGER_BITS || f->width > BL_MAX_INTEGER_BITS) {
        return refuse(field, AT_WIDTH);
    }
    if (f->flags & BL_TENSOR_SUBNORMALS) {
        return refuse(field, AT_FLAGS);
    }
    if ((f->flags & BL_TENSOR_SIGNED) && !(f->flags & BL_TENSOR_AFFINE)) {
        magnitude_bits--; /* up to and including 2^magnitude_bits */
        if (magnitude_bits - f->bias > 127) {
            return refuse(field, AT_BIAS);
        }
    }
    if (magnitude_bits - f->bias > 128 || f->bias > 149) {
        return refuse(field, AT_BIAS);
    }
    return BL_OK;
}

bl_status bl_format_check(const bl_format *f, uint32_t *field)
{
    const uint8_t known = BL_TENSOR_SIGNED | BL_TENSOR_SUBNORMALS | BL_TENSOR_AFFINE;

    if (f->flags & (uint8_t)~known) {
        return refuse(field, AT_FLAGS);
    }
    if (f->packing > BL_PACKING_TRITS || (f->packing == BL_PACKING_TRITS && f->kind != BL_FORMAT_TERNARY)) {
        return refuse(field, AT_PACKING);
    }
    if (f->kind == BL_FORMAT_FLOAT) {
        return check_float(f, field);
    }
    if (f->exponent_bits != 0) {
        return refuse(field, AT_EXPONENT);
    }
    if (f->mantissa_bits != 0) {
        return refuse(field, AT_MANTISSA);
    }
    if (f->top != 0) {
        return refuse(field, AT_TOP);
    }
    switch (f->kind) {
    case BL_FORMAT_INTEGER:
        return check_integer(f, field);
    case BL_FORMAT_TERNARY:
    case BL_FORMAT_BINARY:
        if (f->width != (f->kind == BL_FORMAT_TERNARY ? 2u : 1u)) {
            return refuse(field, AT_WIDTH);
        }
        if (f->flags & (BL_TENSOR_SUBNORMALS | BL_TENSOR_AFFINE)) {
            return refuse(field, AT_FLAGS);
        }
        return f->bias == 0 ? BL_OK : refuse(field, AT_BIAS);
    default:
        return refuse(field, AT_KIND);
    }
}

static uint32_t low_bits(unsigned count)
{
    return count < 32 ? ((uint32_t)1 << count) - 1u : 0xFFFFFFFFu;
}

bool bl_format_has_holes(const bl_format *f)
{
    return (f->kind == BL_FORMAT_FLOAT && f->top != BL_TOP_FINITE) || f->kind == BL_FORMAT_TERNARY;
}

bool bl_format_is_finite(const bl_format *f, uint32_t code)
{
    if (f->kind == BL_FORMAT_TERNARY) {
        return code != 2u;
    }
    if (f->kind != BL_FORMAT_FLOAT) {
        return true;
    }
    if (f->top == BL_TOP_IEEE) {
        return ((code >> f->mantissa_bits) & low_bits(f->exponent_bits)) != low_bits(f->exponent_bits);
    }
    if (f->top == BL_TOP_FN) {
        uint32_t magnitude = low_bits((unsigned)f->exponent_bits + f->mantissa_bits);
        return (code & magnitude) != magnitude;
    }
    return true;
}

int32_t bl_format_integer_min(const bl_format *f)
{
    return f->flags & BL_TENSOR_SIGNED ? -((int32_t)1 << (f->width - 1)) : 0;
}

int32_t bl_format_integer_max(const bl_format *f)
{
    return f->flags & BL_TENSOR_SIGNED ? ((int32_t)1 << (f->width - 1)) - 1 : ((int32_t)1 << f->width) - 1;
}

/* integer · 2^power, 0 < integer < 2^24, known to be a binary32 number. */
static float assemble(uint32_t sign, uint32_t integer, int32_t power)
{
    int32_t exponent = power + 150; /* the biased one, once the leading bit stands at bit 23 */

    while (integer < 0x800000u) {
        integer <<= 1;
        exponent--;
    }
    if (exponent < 1) {
        return bl_float_from_bits(sign | (integer >> (1 - exponent)));
    }
    return bl_float_from_bits(sign | ((uint32_t)exponent << 23) | (integer & 0x7FFFFFu));
}

static float decode_float(const bl_format *f, uint32_t code)
{
    uint32_t mantissa = code & low_bits(f->mantissa_bits);
    uint32_t exponent = (code >> f->mantissa_bits) & low_bits(f->exponent_bits);
    uint32_t sign = 0;
    int32_t biased;

    if (f->flags & BL_TENSOR_SIGNED) {
        sign = (code >> (f->width - 1)) << 31;
    }
    if (exponent == 0) {
        if (mantissa == 0 || !(f->flags & BL_TENSOR_SUBNORMALS)) {
            return bl_float_from_bits(sign);
        }
        return assemble(sign, mantissa, 1 - f->bias - f->mantissa_bits);
    }
    biased = (int32_t)exponent - f->bias + 127;
    if (biased >= 1) {
        return bl_float_from_bits(sign | ((uint32_t)biased << 23) | (mantissa << (23 - f->mantissa_bits)));
    }
    return assemble(sign, mantissa | ((uint32_t)1 << f->mantissa_bits),
                    (int32_t)exponent - f->bias - f->mantissa_bits);
}

static float decode_integer(const bl_format *f, uint32_t code, int32_t zero_point)
{
    int32_t value = (int32_t)code;

    if ((f->flags & BL_TENSOR_SIGNED) && (code >> (f->width - 1)) != 0) {
        value -= (int32_t)1 << f->width;
    }
    if (f->flags & BL_TENSOR_AFFINE) {
        value -= zero_point;
    }
    if (f->bias == 0 || value == 0) {
        return (float)value;
    }
    return value < 0 ? assemble(0x80000000u, (uint32_t)-value, -(int32_t)f->bias)
                     : assemble(0, (uint32_t)value, -(int32_t)f->bias);
}

float bl_format_decode(const bl_format *f, uint32_t code, int32_t zero_point)
{
    switch (f->kind) {
    case BL_FORMAT_FLOAT:
        return decode_float(f, code);
    case BL_FORMAT_INTEGER:
        return decode_integer(f, code, zero_point);
    case BL_FORMAT_TERNARY:
        return code == 3u ? -1.0f : (float)code;
    default:
        return code != 0 ? 1.0f : -1.0f;
    }
}

void bl_format_fill_table(const bl_format *f, int32_t zero_point, float *table)
{
    uint32_t count = (uint32_t)1 << f->width;

    for (uint32_t code = 0; code < count; code++) {
        table[code] = bl_format_is_finite(f, code) ? bl_format_decode(f, code, zero_point) : 0.0f;
    }
}

uint32_t bl_format_row_bytes(const bl_format *f, uint32_t count)
{
    if (f->packing == BL_PACKING_TRITS) {
        return count / BL_TRITS_PER_BYTE + (count % BL_TRITS_PER_BYTE != 0);
    }
    /* In two parts, as count · width may not fit 32 bits. */
    return count / 8u * f->width + (count % 8u * f->width + 7u) / 8u;
}

void bl_format_reader_init(bl_format_reader *reader, const bl_format *f, const uint8_t *row)
{
    reader->next = row;
    reader->width = f->width;
    reader->held = 0;
    reader->rest = 0;
    reader->trits = f->packing == BL_PACKING_TRITS;
}

uint32_t bl_format_code_at(const bl_format *f, const uint8_t *row, uint32_t index)
{
    bl_format_reader reader;

    if (f->packing == BL_PACKING_TRITS) {
        bl_format_reader_init(&reader, f, row + index / BL_TRITS_PER_BYTE);
        index %= BL_TRITS_PER_BYTE;
    } else {
        bl_format_reader_init(&reader, f, row + index / 8u * f->width);
        index %= 8u;
    }
    while (index > 0) {
        (void)bl_format_read(&reader);
        index--;
    }
    return bl_format_read(&reader);
}
