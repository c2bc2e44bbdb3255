#include "bl_image.h"

#include "bl_frame.h"

/* Byte offsets of fields (docs/model.md). */
enum {
    H_VERSION = 4, H_HEADER_BYTES = 6, H_LENGTH = 8, H_LAYERS = 12, H_TENSORS = 14, H_LAYER_BYTES = 16,
    H_TENSOR_BYTES = 18, H_INPUT = 20, H_RESERVED_1 = 26, H_ARENA = 28, H_QUEUE = 32, H_SLOTS = 36, H_RESERVED_2 = 38,
    H_SLOT_BYTES = 40, H_OUTPUT = 44, H_LOGITS = 48, H_RESERVED_3 = 52
};
enum {
    L_KIND = 0, L_ACTIVATION = 1, L_KERNEL = 2, L_STRIDE = 4, L_PADDING = 6, L_IN = 8, L_OUT = 14, L_WEIGHTS = 20,
    L_BIASES = 22, L_INPUT = 24, L_OUTPUT = 28, L_TABLE = 32, L_RESERVED = 36
};
enum {
    T_LAYOUT = 7, T_SCALE_KIND = 10, T_GRANULARITY = 11, T_ROWS = 12, T_COLUMNS = 16, T_ROW_BYTES = 20, T_DATA = 24,
    T_DATA_BYTES = 28, T_SCALES = 32, T_ZERO_POINTS = 36, T_GROUPS = 40, T_RESERVED = 44
};

/* --- accessors -------------------------------------------------------------------------------------------------- */

static void read_shape(const uint8_t *bytes, bl_shape *shape)
{
    shape->height = bl_load_u16(bytes);
    shape->width = bl_load_u16(bytes + 2);
    shape->channels = bl_load_u16(bytes + 4);
}

void bl_image_read_header(const uint8_t *image, bl_image_header *h)
{
    h->length = bl_load_u32(image + H_LENGTH);
    h->layers = bl_load_u16(image + H_LAYERS);
    h->tensors = bl_load_u16(image + H_TENSORS);
    read_shape(image + H_INPUT, &h->input);
    h->pixels = bl_shape_count(&h->input);
    h->arena_bytes = bl_load_u32(image + H_ARENA);
    h->queue = bl_load_u32(image + H_QUEUE);
    h->slots = bl_load_u16(image + H_SLOTS);
    h->slot_bytes = bl_load_u32(image + H_SLOT_BYTES);
    h->output = bl_load_u32(image + H_OUTPUT);
    h->logits = bl_load_u32(image + H_LOGITS);
}

static const uint8_t *layer_at(const uint8_t *image, uint16_t layer)
{
    return image + BL_IMAGE_HEADER_BYTES + (uint32_t)layer * BL_LAYER_RECORD_BYTES;
}

void bl_image_read_layer(const uint8_t *image, uint16_t layer, bl_image_layer *r)
{
    const uint8_t *bytes = layer_at(image, layer);

    r->kind = bytes[L_KIND];
    r->activation = bytes[L_ACTIVATION];
    r->kernel_height = bytes[L_KERNEL];
    r->kernel_width = bytes[L_KERNEL + 1];
    r->stride_y = bytes[L_STRIDE];
    r->stride_x = bytes[L_STRIDE + 1];
    r->pad_top = bytes[L_PADDING];
    r->pad_left = bytes[L_PADDING + 1];
    read_shape(bytes + L_IN, &r->in);
    read_shape(bytes + L_OUT, &r->out);
    r->weights = bl_load_u16(bytes + L_WEIGHTS);
    r->biases = bl_load_u16(bytes + L_BIASES);
    r->input = bl_load_u32(bytes + L_INPUT);
    r->output = bl_load_u32(bytes + L_OUTPUT);
    r->table = bl_load_u32(bytes + L_TABLE);
}

static const uint8_t *tensor_at(const uint8_t *image, uint16_t layer_count, uint16_t tensor)
{
    return layer_at(image, layer_count) + (uint32_t)tensor * BL_TENSOR_RECORD_BYTES;
}

void bl_image_read_tensor(const uint8_t *image, uint16_t layer_count, uint16_t tensor, bl_image_tensor *r)
{
    const uint8_t *bytes = tensor_at(image, layer_count, tensor);

    r->format.kind = bytes[0];
    r->format.width = bytes[1];
    r->format.exponent_bits = bytes[2];
    r->format.mantissa_bits = bytes[3];
    r->format.flags = bytes[4];
    r->format.top = bytes[5];
    r->format.packing = bytes[6];
    r->format.bias = (int16_t)bl_load_u16(bytes + 8);
    r->layout = bytes[T_LAYOUT];
    r->scale_kind = bytes[T_SCALE_KIND];
    r->granularity = bytes[T_GRANULARITY];
    r->rows = bl_load_u32(bytes + T_ROWS);
    r->columns = bl_load_u32(bytes + T_COLUMNS);
    r->row_bytes = bl_load_u32(bytes + T_ROW_BYTES);
    r->data = bl_load_u32(bytes + T_DATA);
    r->data_bytes = bl_load_u32(bytes + T_DATA_BYTES);
    r->scales = bl_load_u32(bytes + T_SCALES);
    r->zero_points = bl_load_u32(bytes + T_ZERO_POINTS);
    r->groups = bl_load_u32(bytes + T_GROUPS);
}

static uint32_t group_of(const bl_image_tensor *tensor, uint32_t column)
{
    return tensor->groups > 1 ? column : 0;
}

float bl_image_scale(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column)
{
    if (tensor->scale_kind == BL_SCALE_NONE) {
        return 1.0f;
    }
    return bl_float_from_bits(bl_load_u32(image + tensor->scales + 4u * group_of(tensor, column)));
}

int32_t bl_image_zero_point(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column)
{
    if (tensor->zero_points == BL_NO_OFFSET) {
        return 0;
    }
    return (int32_t)bl_load_u32(image + tensor->zero_points + 4u * group_of(tensor, column));
}

float bl_image_bias(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column)
{
    uint32_t code = bl_format_code_at(&tensor->format, image + tensor->data, column);
    float element = bl_format_decode(&tensor->format, code, bl_image_zero_point(image, tensor, column));

    return tensor->scale_kind == BL_SCALE_NONE ? element : element * bl_image_scale(image, tensor, column);
}

/* --- validation ------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *image;
    bl_image_header header;
    uint32_t data_begin; /* the tensors' data lie in [data_begin, data_end) of the image */
    uint32_t data_end;
    uint32_t *details;
} checker;

static bl_status refuse(const checker *c, bl_status status, uint32_t first, uint32_t second)
{
    c->details[0] = first;
    c->details[1] = second;
    return status;
}

static bool all_zero(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* H · W · C in `count`; false if a dimension is 0 or the elements, four bytes each, would not fit 32 bits. */
static bool shape_count(const bl_shape *shape, uint32_t *count)
{
    uint32_t area = (uint32_t)shape->height * shape->width;

    *count = 0;
    if (area == 0 || shape->channels == 0 || area > 0x3FFFFFFFu / shape->channels) {
        return false;
    }
    *count = area * shape->channels;
    return true;
}

/* Does [offset, offset + bytes) lie in [begin, end)? begin <= end. */
static bool inside(uint32_t offset, uint32_t bytes, uint32_t begin, uint32_t end)
{
    return offset >= begin && offset <= end && bytes <= end - offset;
}

/* Both regions lie below 2^32. */
static bool overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static bl_status check_header(checker *c)
{
    const uint8_t *image = c->image;
    bl_image_header *h = &c->header;
    uint32_t records;
    uint32_t count;

    if (bl_load_u16(image + H_HEADER_BYTES) != BL_IMAGE_HEADER_BYTES) {
        return refuse(c, BL_BAD_HEADER, H_HEADER_BYTES, 0);
    }
    if (bl_load_u16(image + H_LAYER_BYTES) != BL_LAYER_RECORD_BYTES) {
        return refuse(c, BL_BAD_HEADER, H_LAYER_BYTES, 0);
    }
    if (bl_load_u16(image + H_TENSOR_BYTES) != BL_TENSOR_RECORD_BYTES) {
        return refuse(c, BL_BAD_HEADER, H_TENSOR_BYTES, 0);
    }
    if (!all_zero(image + H_RESERVED_1, 2)) {
        return refuse(c, BL_BAD_HEADER, H_RESERVED_1, 0);
    }
    if (!all_zero(image + H_RESERVED_2, 2)) {
        return refuse(c, BL_BAD_HEADER, H_RESERVED_2, 0);
    }
    if (!all_zero(image + H_RESERVED_3, BL_IMAGE_HEADER_BYTES - H_RESERVED_3)) {
        return refuse(c, BL_BAD_HEADER, H_RESERVED_3, 0);
    }
    bl_image_read_header(image, h);
    if (h->layers == 0) {
        return refuse(c, BL_BAD_HEADER, H_LAYERS, 0);
    }
    if (h->layers > BL_MAX_LAYERS) {
        return refuse(c, BL_TOO_MANY, h->layers, BL_MAX_LAYERS);
    }
    if (h->tensors > BL_MAX_TENSORS) {
        return refuse(c, BL_TOO_MANY, h->tensors, BL_MAX_TENSORS);
    }
    records = BL_IMAGE_HEADER_BYTES + (uint32_t)h->layers * BL_LAYER_RECORD_BYTES +
              (uint32_t)h->tensors * BL_TENSOR_RECORD_BYTES;
    c->data_end = h->length - BL_IMAGE_CRC_BYTES;
    c->data_begin = records;
    if (records > c->data_end) {
        return refuse(c, BL_BAD_HEADER, H_LAYERS, 0);
    }
    if (!shape_count(&h->input, &count)) {
        return refuse(c, BL_BAD_HEADER, H_INPUT, 0);
    }
    h->pixels = count;
    return BL_OK;
}

/* The regions of the arena that the header names; the output is held against the last layer later. */
static bl_status check_arena(const checker *c, uint32_t arena_bytes)
{
    const bl_image_header *h = &c->header;
    uint32_t slot;

    if (h->arena_bytes > arena_bytes) {
        return refuse(c, BL_NO_MEMORY, h->arena_bytes, arena_bytes);
    }
    if (h->arena_bytes < h->length) {
        return refuse(c, BL_BAD_HEADER, H_ARENA, 0);
    }
    if (h->logits == 0 || h->logits > 0x0FFFFFFFu) {
        return refuse(c, BL_BAD_HEADER, H_LOGITS, 0);
    }
    slot = bl_align4(h->pixels) + bl_image_result_bytes(h); /* no overflow: below 2^30 + 2^30 + 2^19 */
    if (h->slot_bytes != slot) {
        return refuse(c, BL_BAD_HEADER, H_SLOT_BYTES, 0);
    }
    if (h->slots == 0 || slot > h->arena_bytes / h->slots) {
        return refuse(c, BL_BAD_HEADER, H_SLOTS, 0);
    }
    if (h->queue % BL_ARENA_ALIGNMENT != 0 || !inside(h->queue, h->slots * slot, h->length, h->arena_bytes)) {
        return refuse(c, BL_BAD_HEADER, H_QUEUE, 0);
    }
    return BL_OK;
}

/* Groups, and the arrays of scales and zero points. */
static bl_status check_groups(const checker *c, uint16_t index, const bl_image_tensor *t)
{
    bool scaled = t->scale_kind != BL_SCALE_NONE;
    bool affine = (t->format.flags & BL_TENSOR_AFFINE) != 0;
    uint32_t groups = 0;

    if (t->scale_kind > BL_SCALE_FP32) {
        return refuse(c, BL_BAD_TENSOR_FORMAT, index, T_SCALE_KIND);
    }
    if (t->granularity > BL_GRANULARITY_CHANNEL) {
        return refuse(c, BL_BAD_TENSOR_FORMAT, index, T_GRANULARITY);
    }
    if (scaled || affine) {
        groups = t->granularity == BL_GRANULARITY_CHANNEL ? t->columns : 1;
    }
    if (t->groups != groups) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_GROUPS);
    }
    if (scaled ? t->scales % BL_IMAGE_ALIGNMENT != 0 || !inside(t->scales, 4u * groups, c->data_begin, c->data_end)
               : t->scales != BL_NO_OFFSET) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_SCALES);
    }
    if (affine ? t->zero_points % BL_IMAGE_ALIGNMENT != 0 ||
                     !inside(t->zero_points, 4u * groups, c->data_begin, c->data_end)
               : t->zero_points != BL_NO_OFFSET) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ZERO_POINTS);
    }
    for (uint32_t group = 0; group < groups; group++) {
        if (scaled) {
            uint32_t bits = bl_load_u32(c->image + t->scales + 4u * group);
            /* Positive, normal, finite; a power of two has no mantissa. */
            if (bits < 0x00800000u || bits >= 0x7F800000u || (t->scale_kind == BL_SCALE_POW2 && (bits & 0x7FFFFFu))) {
                return refuse(c, BL_BAD_SCALE, index, group);
            }
        }
        if (affine) {
            int32_t zero_point = (int32_t)bl_load_u32(c->image + t->zero_points + 4u * group);
            if (zero_point < bl_format_integer_min(&t->format) || zero_point > bl_format_integer_max(&t->format)) {
                return refuse(c, BL_BAD_SCALE, index, group);
            }
        }
    }
    return BL_OK;
}

static bl_status check_codes(const checker *c, uint16_t index, const bl_image_tensor *t)
{
    bool holes = bl_format_has_holes(&t->format);
    uint32_t padding_bits = t->row_bytes * 8u - t->columns * t->format.width;

    for (uint32_t row = 0; row < t->rows; row++) {
        const uint8_t *bytes = c->image + t->data + row * t->row_bytes;
        if (holes) {
            bl_format_reader reader;
            bl_format_reader_init(&reader, &t->format, bytes);
            for (uint32_t column = 0; column < t->columns; column++) {
                if (!bl_format_is_finite(&t->format, bl_format_read(&reader)) ||
                    (bl_format_stray(&reader) && reader.trits)) {
                    return refuse(c, BL_BAD_CODE, index, row * t->columns + column);
                }
            }
            if (reader.rest != 0) {
                return refuse(c, BL_BAD_CODE, index, row * t->columns + t->columns - 1u);
            }
        } else if (bytes[t->row_bytes - 1u] >> (8u - padding_bits)) {
            return refuse(c, BL_BAD_CODE, index, row * t->columns + t->columns - 1u);
        }
    }
    return BL_OK;
}

static bl_status check_tensor(const checker *c, uint16_t index)
{
    bl_image_tensor t;
    uint32_t field;
    bl_status status;

    bl_image_read_tensor(c->image, c->header.layers, index, &t);
    status = bl_format_check(&t.format, &field);
    if (status != BL_OK) {
        return refuse(c, status, index, field);
    }
    if (t.layout != BL_LAYOUT_IN_MAJOR) {
        return refuse(c, BL_BAD_TENSOR_FORMAT, index, T_LAYOUT);
    }
    if (!all_zero(tensor_at(c->image, c->header.layers, index) + T_RESERVED, 4)) {
        return refuse(c, BL_BAD_TENSOR_FORMAT, index, T_RESERVED);
    }
    if (t.rows == 0) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ROWS);
    }
    if (t.columns == 0 || t.columns > BL_MAX_DIMENSION) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_COLUMNS);
    }
    if (t.row_bytes != bl_format_row_bytes(&t.format, t.columns)) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_ROW_BYTES);
    }
    if (t.data % BL_IMAGE_ALIGNMENT != 0 || !inside(t.data, t.data_bytes, c->data_begin, c->data_end)) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_DATA);
    }
    if (t.data_bytes % t.row_bytes != 0 || t.data_bytes / t.row_bytes != t.rows) {
        return refuse(c, BL_BAD_TENSOR_BOUNDS, index, T_DATA_BYTES);
    }
    status = check_groups(c, index, &t);
    return status != BL_OK ? status : check_codes(c, index, &t);
}

/* Does `tensor` exist, and has it so many rows and columns? */
static bool tensor_fits(const checker *c, uint16_t tensor, uint32_t rows, uint32_t columns)
{
    bl_image_tensor t;

    if (tensor >= c->header.tensors) {
        return false;
    }
    bl_image_read_tensor(c->image, c->header.layers, tensor, &t);
    return t.rows == rows && t.columns == columns;
}

/* Kernel, stride, padding and output of a layer with a window along one axis. */
static bool window_fits(uint8_t kernel, uint8_t stride, uint8_t pad, uint16_t in, uint16_t out)
{
    /* The last window must begin before the input ends; the first one ends behind its begin as pad < kernel. */
    return kernel >= 1 && stride >= 1 && pad < kernel && ((uint32_t)out - 1u) * stride < (uint32_t)in + pad;
}

static bl_status check_window(const checker *c, uint16_t index, const bl_image_layer *l)
{
    if (l->kernel_height == 0 || l->kernel_width == 0) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_KERNEL);
    }
    if (l->stride_y == 0 || l->stride_x == 0) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_STRIDE);
    }
    if (l->pad_top >= l->kernel_height || l->pad_left >= l->kernel_width) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_PADDING);
    }
    if (!window_fits(l->kernel_height, l->stride_y, l->pad_top, l->in.height, l->out.height) ||
        !window_fits(l->kernel_width, l->stride_x, l->pad_left, l->in.width, l->out.width)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    return BL_OK;
}

/* What each kind of layer asks of shapes and tensors; `inputs` and `outputs` are counts of elements. */
static bl_status check_kind(const checker *c, uint16_t index, const bl_image_layer *l, uint32_t inputs, uint32_t outputs)
{
    bool windowed = l->kind == BL_LAYER_CONV2D || l->kind == BL_LAYER_MAX_POOL || l->kind == BL_LAYER_AVERAGE_POOL;
    bool weighted = l->kind == BL_LAYER_DENSE || l->kind == BL_LAYER_CONV2D;

    if (l->activation > (weighted ? BL_ACTIVATION_RELU : BL_ACTIVATION_NONE)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_ACTIVATION);
    }
    if (windowed) {
        bl_status status = check_window(c, index, l);
        if (status != BL_OK) {
            return status;
        }
    } else if (!all_zero(layer_at(c->image, index) + L_KERNEL, L_IN - L_KERNEL)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_KERNEL);
    }
    if (weighted) {
        uint32_t rows = inputs;
        if (l->kind == BL_LAYER_CONV2D) {
            rows = (uint32_t)l->kernel_height * l->kernel_width * l->in.channels; /* below 2^32: 255 · 255 · 65535 */
        } else if (l->out.height != 1 || l->out.width != 1) {
            return refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
        }
        if (!tensor_fits(c, l->weights, rows, l->out.channels)) {
            return refuse(c, BL_BAD_TENSOR_INDEX, index, l->weights);
        }
        if (l->biases != BL_NO_INDEX && !tensor_fits(c, l->biases, 1, l->out.channels)) {
            return refuse(c, BL_BAD_TENSOR_INDEX, index, l->biases);
        }
        return BL_OK;
    }
    if (l->weights != BL_NO_INDEX || l->biases != BL_NO_INDEX) {
        return refuse(c, BL_BAD_TENSOR_INDEX, index, l->weights != BL_NO_INDEX ? l->weights : l->biases);
    }
    if (windowed ? l->in.channels != l->out.channels : inputs != outputs) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    return BL_OK;
}

static bool same_shape(const bl_shape *a, const bl_shape *b)
{
    return a->height == b->height && a->width == b->width && a->channels == b->channels;
}

/* A region of activations or a table: aligned, behind the image, in the arena, and not over the queue. */
static bool region_fits(const checker *c, uint32_t offset, uint32_t bytes)
{
    const bl_image_header *h = &c->header;

    return offset % BL_ARENA_ALIGNMENT == 0 && inside(offset, bytes, h->length, h->arena_bytes) &&
           !overlap(offset, bytes, h->queue, h->slots * h->slot_bytes);
}

static bl_status check_regions(const checker *c, uint16_t index, const bl_image_layer *l, uint32_t inputs,
                               uint32_t outputs)
{
    bool pixels = l->input == BL_NO_OFFSET;

    if (!pixels && !region_fits(c, l->input, 4u * inputs)) {
        return refuse(c, BL_BAD_ARENA, index, L_INPUT);
    }
    if (!region_fits(c, l->output, 4u * outputs)) {
        return refuse(c, BL_BAD_ARENA, index, L_OUTPUT);
    }
    if (!pixels && overlap(l->input, 4u * inputs, l->output, 4u * outputs) &&
        !(l->kind == BL_LAYER_RELU && l->input == l->output)) {
        return refuse(c, BL_BAD_ARENA, index, L_OUTPUT);
    }
    if (l->table != BL_NO_OFFSET) {
        bl_image_tensor weights;
        uint32_t bytes;
        if (l->kind != BL_LAYER_DENSE && l->kind != BL_LAYER_CONV2D) {
            return refuse(c, BL_BAD_ARENA, index, L_TABLE);
        }
        bl_image_read_tensor(c->image, c->header.layers, l->weights, &weights);
        if (weights.format.width > 16) {
            return refuse(c, BL_BAD_ARENA, index, L_TABLE);
        }
        bytes = (uint32_t)4 << weights.format.width;
        if (!region_fits(c, l->table, bytes) || overlap(l->table, bytes, l->output, 4u * outputs) ||
            (!pixels && overlap(l->table, bytes, l->input, 4u * inputs))) {
            return refuse(c, BL_BAD_ARENA, index, L_TABLE);
        }
    }
    return BL_OK;
}

static bl_status check_layer(const checker *c, uint16_t index, const bl_image_layer *before)
{
    bl_image_layer l;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t given = c->header.pixels;
    const bl_shape *shape = index == 0 ? &c->header.input : &before->out;
    bl_status status;

    bl_image_read_layer(c->image, index, &l);
    if (l.kind < BL_LAYER_DENSE || l.kind > BL_LAYER_RELU) {
        return refuse(c, BL_BAD_LAYER_KIND, index, l.kind);
    }
    if (!shape_count(&l.in, &inputs)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_IN);
    }
    if (!shape_count(&l.out, &outputs)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    if (!all_zero(layer_at(c->image, index) + L_RESERVED, 4)) {
        return refuse(c, BL_BAD_LAYER_SHAPE, index, L_RESERVED);
    }
    if (index > 0) {
        given = bl_shape_count(&before->out);
    }
    if ((l.input == BL_NO_OFFSET) != (index == 0) || (index > 0 && l.input != before->output) || inputs != given) {
        return refuse(c, BL_BAD_LAYER_CHAIN, index, 0);
    }
    if (l.kind != BL_LAYER_DENSE && l.kind != BL_LAYER_RELU && !same_shape(&l.in, shape)) {
        return refuse(c, BL_BAD_LAYER_CHAIN, index, 0);
    }
    status = check_kind(c, index, &l, inputs, outputs);
    if (status == BL_OK) {
        status = check_regions(c, index, &l, inputs, outputs);
    }
    if (status == BL_OK && index + 1u == c->header.layers) {
        if (c->header.output != l.output) {
            return refuse(c, BL_BAD_HEADER, H_OUTPUT, 0);
        }
        if (c->header.logits != outputs) {
            return refuse(c, BL_BAD_HEADER, H_LOGITS, 0);
        }
    }
    return status;
}

bl_status bl_image_validate(const uint8_t *image, uint32_t length, uint32_t arena_bytes, uint32_t details[2])
{
    checker c;
    bl_image_layer before;
    bl_status status;

    c.image = image;
    c.details = details;
    details[0] = 0;
    details[1] = 0;
    if (length < BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES || length > BL_MAX_IMAGE_BYTES) {
        return refuse(&c, BL_BAD_LENGTH, length, BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES);
    }
    if (memcmp(image, BL_IMAGE_MAGIC, 4) != 0) {
        return BL_BAD_MAGIC;
    }
    if (bl_load_u16(image + H_VERSION) != BL_IMAGE_VERSION) {
        return refuse(&c, BL_BAD_VERSION, bl_load_u16(image + H_VERSION), BL_IMAGE_VERSION);
    }
    if (bl_load_u32(image + H_LENGTH) != length) {
        return refuse(&c, BL_BAD_LENGTH, bl_load_u32(image + H_LENGTH), length);
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
        status = check_layer(&c, i, &before);
        bl_image_read_layer(image, i, &before);
    }
    return status;
}
