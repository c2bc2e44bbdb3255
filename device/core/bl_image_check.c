#include "bl_frame.h"
#include "bl_image_check.h"

static bl_status check_header(bl_checker *c)
{
    const uint8_t *image = c->image;
    bl_image_header *h = &c->header;
    uint32_t records;
    uint32_t count;

    if (bl_load_u16(image + H_HEADER_BYTES) != BL_IMAGE_HEADER_BYTES) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_HEADER_BYTES, 0);
    }
    if (bl_load_u16(image + H_LAYER_BYTES) != BL_LAYER_RECORD_BYTES) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_LAYER_BYTES, 0);
    }
    if (bl_load_u16(image + H_TENSOR_BYTES) != BL_TENSOR_RECORD_BYTES) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_TENSOR_BYTES, 0);
    }
    if (!bl_check_all_zero(image + H_RESERVED_1, 2)) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_RESERVED_1, 0);
    }
    if (!bl_check_all_zero(image + H_RESERVED_2, 2)) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_RESERVED_2, 0);
    }
    if (!bl_check_all_zero(image + H_RESERVED_3, BL_IMAGE_HEADER_BYTES - H_RESERVED_3)) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_RESERVED_3, 0);
    }
    bl_image_read_header(image, h);
    if (h->layers == 0) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_LAYERS, 0);
    }
    if (h->layers > BL_MAX_LAYERS) {
        return bl_check_refuse(c, BL_TOO_MANY, h->layers, BL_MAX_LAYERS);
    }
    if (h->tensors > BL_MAX_TENSORS) {
        return bl_check_refuse(c, BL_TOO_MANY, h->tensors, BL_MAX_TENSORS);
    }
    records = BL_IMAGE_HEADER_BYTES + (uint32_t)h->layers * BL_LAYER_RECORD_BYTES +
              (uint32_t)h->tensors * BL_TENSOR_RECORD_BYTES;
    c->data_end = h->length - BL_IMAGE_CRC_BYTES;
    c->data_begin = records;
    if (records > c->data_end) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_LAYERS, 0);
    }
    if (!bl_check_shape(&h->input, &count)) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_INPUT, 0);
    }
    h->pixels = count;
    return BL_OK;
}

/* The regions of the arena that the header names; the output is held against the last layer later. */
static bl_status check_arena(const bl_checker *c, uint32_t arena_bytes)
{
    const bl_image_header *h = &c->header;
    uint32_t slot;

    if (h->arena_bytes > arena_bytes) {
        return bl_check_refuse(c, BL_NO_MEMORY, h->arena_bytes, arena_bytes);
    }
    if (h->arena_bytes < h->length) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_ARENA, 0);
    }
    if (h->logits == 0 || h->logits > 0x0FFFFFFFu) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_LOGITS, 0);
    }
    slot = bl_align4(h->pixels) + bl_image_result_bytes(h); /* no overflow: below 2^30 + 2^30 + 2^19 */
    if (h->slot_bytes != slot) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_SLOT_BYTES, 0);
    }
    if (h->slots == 0 || slot > h->arena_bytes / h->slots) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_SLOTS, 0);
    }
    if (h->queue % BL_ARENA_ALIGNMENT != 0 || !bl_check_inside(h->queue, h->slots * slot, h->length, h->arena_bytes)) {
        return bl_check_refuse(c, BL_BAD_HEADER, H_QUEUE, 0);
    }
    return BL_OK;
}

/* Groups, and the arrays of scales and zero points. */
static bl_status check_groups(const bl_checker *c, uint16_t index, const bl_image_tensor *t)
{
    bool scaled = t->scale_kind != BL_SCALE_NONE;
    bool affine = (t->format.flags & BL_TENSOR_AFFINE) != 0;
    uint32_t groups = 0;

    if (t->scale_kind > BL_SCALE_FP32) {
        return bl_check_refuse(c, BL_BAD_TENSOR_FORMAT, index, T_SCALE_KIND);
    }
    if (t->granularity > BL_GRANULARITY_CHANNEL) {
        return bl_check_refuse(c, BL_BAD_TENSOR_FORMAT, index, T_GRANULARITY);
    }
    if (scaled || affine) {
        groups = t->granularity == BL_GRANULARITY_CHANNEL ? t->columns : 1;
    }
    if (t->groups != groups) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_GROUPS);
    }
    if (scaled ? t->scales % BL_IMAGE_ALIGNMENT != 0 || !bl_check_inside(t->scales, 4u * groups, c->data_begin, c->data_end)
               : t->scales != BL_NO_OFFSET) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_SCALES);
    }
    if (affine ? t->zero_points % BL_IMAGE_ALIGNMENT != 0 ||
                     !bl_check_inside(t->zero_points, 4u * groups, c->data_begin, c->data_end)
               : t->zero_points != BL_NO_OFFSET) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ZERO_POINTS);
    }
    for (uint32_t group = 0; group < groups; group++) {
        if (scaled) {
            uint32_t bits = bl_load_u32(c->image + t->scales + 4u * group);
            /* Positive, normal, finite; a power of two has no mantissa. */
            if (bits < 0x00800000u || bits >= 0x7F800000u || (t->scale_kind == BL_SCALE_POW2 && (bits & 0x7FFFFFu))) {
                return bl_check_refuse(c, BL_BAD_SCALE, index, group);
            }
        }
        if (affine) {
            int32_t zero_point = (int32_t)bl_load_u32(c->image + t->zero_points + 4u * group);
            if (zero_point < bl_format_integer_min(&t->format) || zero_point > bl_format_integer_max(&t->format)) {
                return bl_check_refuse(c, BL_BAD_SCALE, index, group);
            }
        }
    }
    return BL_OK;
}

bl_status bl_image_check_codes(const bl_image_tensor *t, const uint8_t *data, uint32_t *element)
{
    bool holes = bl_format_has_holes(&t->format);
    uint32_t padding_bits = t->row_bytes * 8u - t->columns * t->format.width;

    for (uint32_t row = 0; row < t->rows; row++, data += t->row_bytes) {
        *element = row * t->columns + t->columns - 1u;
        if (holes) {
            bl_format_reader reader;
            bl_format_reader_init(&reader, &t->format, data);
            for (uint32_t column = 0; column < t->columns; column++) {
                if (!bl_format_is_finite(&t->format, bl_format_read(&reader)) ||
                    (bl_format_stray(&reader) && reader.trits)) {
                    *element = row * t->columns + column;
                    return BL_BAD_CODE;
                }
            }
            if (reader.rest != 0) {
                return BL_BAD_CODE;
            }
        } else if (data[t->row_bytes - 1u] >> (8u - padding_bits)) {
            return BL_BAD_CODE;
        }
    }
    return BL_OK;
}

static bl_status check_tensor(const bl_checker *c, uint16_t index)
{
    bl_image_tensor t;
    uint32_t field;
    bl_status status;

    bl_image_read_tensor(c->image, c->header.layers, index, &t);
    status = bl_format_check(&t.format, &field);
    if (status != BL_OK) {
        return bl_check_refuse(c, status, index, field);
    }
    if (t.layout != BL_LAYOUT_IN_MAJOR) {
        return bl_check_refuse(c, BL_BAD_TENSOR_FORMAT, index, T_LAYOUT);
    }
    if (t.rows == 0) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ROWS);
    }
    if (t.columns == 0 || t.columns > BL_MAX_DIMENSION) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_COLUMNS);
    }
    if (t.chunk > t.columns) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_CHUNK);
    }
    if (t.row_bytes != bl_format_row_bytes(&t.format, t.chunk != 0 ? t.chunk : t.columns)) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ROW_BYTES);
    }
    if (t.data_bytes % t.row_bytes != 0 || t.data_bytes / t.row_bytes != t.rows) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_DATA_BYTES);
    }
    if (t.chunk != 0 ? t.data_bytes > BL_MAX_IMAGE_BYTES ||
                           !bl_check_region(c, t.data, t.data_bytes + BL_CHUNK_MARGIN_BYTES)
                     : t.data % BL_IMAGE_ALIGNMENT != 0 ||
                           !bl_check_inside(t.data, t.data_bytes, c->data_begin, c->data_end)) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_DATA);
    }
    if (t.chunk == 0 && t.crc != 0) {
        return bl_check_refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_CRC);
    }
    status = check_groups(c, index, &t);
    if (status == BL_OK && t.chunk == 0) {
        status = bl_image_check_codes(&t, c->image + t.data, &field);
        if (status != BL_OK) {
            return bl_check_refuse(c, status, index, field);
        }
    }
    return status;
}

bl_status bl_image_validate(const uint8_t *image, uint32_t length, uint32_t arena_bytes, uint32_t details[2])
{
    bl_checker c;
    bl_status status;

    c.image = image;
    c.details = details;
    c.streamed = 0;
    details[0] = 0;
    details[1] = 0;
    if (length < BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES || length > BL_MAX_IMAGE_BYTES) {
        return bl_check_refuse(&c, BL_BAD_LENGTH, length, BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES);
    }
    if (memcmp(image, BL_IMAGE_MAGIC, 4) != 0) {
        return BL_BAD_MAGIC;
    }
    if (bl_load_u16(image + H_VERSION) != BL_IMAGE_VERSION) {
        return bl_check_refuse(&c, BL_BAD_VERSION, bl_load_u16(image + H_VERSION), BL_IMAGE_VERSION);
    }
    if (bl_load_u32(image + H_LENGTH) != length) {
        return bl_check_refuse(&c, BL_BAD_LENGTH, bl_load_u32(image + H_LENGTH), length);
    }
    if (bl_frame_crc32(0, image, length - BL_IMAGE_CRC_BYTES) != bl_load_u32(image + length - BL_IMAGE_CRC_BYTES)) {
        return BL_BAD_CRC;
    }
    status = check_header(&c);
    if (status == BL_OK) {
        status = check_arena(&c, arena_bytes);
    }
    for (uint16_t i = 0; status == BL_OK && i < c.header.tensors; i++) {
        status = check_tensor(&c, i);
    }
    for (uint16_t i = 0; status == BL_OK && i < c.header.layers; i++) {
        status = bl_image_check_layer(&c, i);
    }
    if (status == BL_OK && c.streamed != c.header.streamed) {
        return bl_check_refuse(&c, BL_BAD_HEADER, H_STREAMED, 0);
    }
    return status;
}
