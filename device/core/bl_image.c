#include "bl_image.h"

#include "bl_image_fields.h"

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
    h->streamed = bl_load_u32(image + H_STREAMED);
}

void bl_image_read_layer(const uint8_t *image, uint16_t layer, bl_image_layer *r)
{
    const uint8_t *bytes = bl_image_layer_at(image, layer);

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
    r->pool = bytes[L_POOL];
    r->pool_height = bytes[L_POOL_KERNEL];
    r->pool_width = bytes[L_POOL_KERNEL + 1];
    r->pool_stride_y = bytes[L_POOL_STRIDE];
    r->pool_stride_x = bytes[L_POOL_STRIDE + 1];
    r->pool_pad_top = bytes[L_POOL_PADDING];
    r->pool_pad_left = bytes[L_POOL_PADDING + 1];
    r->map_height = bl_load_u16(bytes + L_MAP);
    r->map_width = bl_load_u16(bytes + L_MAP + 2);
    r->tile = bl_load_u32(bytes + L_TILE);
    r->batch_stride = bl_load_u32(bytes + L_BATCH_STRIDE);
}

void bl_image_read_tensor(const uint8_t *image, uint16_t layer_count, uint16_t tensor, bl_image_tensor *r)
{
    const uint8_t *bytes = bl_image_tensor_at(image, layer_count, tensor);

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
    r->chunk = bl_load_u32(bytes + T_CHUNK);
    r->crc = bl_load_u32(bytes + T_CRC);
    r->first = 0;
}

static uint32_t group_of(const bl_image_tensor *tensor, uint32_t column)
{
    return tensor->groups > 1 ? tensor->first + column : 0;
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

bool bl_image_is_streamed(const uint8_t *image, uint16_t layer_count, uint16_t layer)
{
    bl_image_layer record;
    bl_image_tensor weights;

    bl_image_read_layer(image, layer, &record);
    if (record.weights >= bl_load_u16(image + H_TENSORS)) {
        return false; /* none; or a layer that was not checked yet */
    }
    bl_image_read_tensor(image, layer_count, record.weights, &weights);
    return weights.chunk != 0;
}

uint16_t bl_image_stage_end(const uint8_t *image, uint16_t layer_count, uint16_t layer)
{
    if (!bl_image_is_streamed(image, layer_count, layer)) {
        while (layer + 1u < layer_count && !bl_image_is_streamed(image, layer_count, (uint16_t)(layer + 1u))) {
            layer++;
        }
    }
    return layer;
}

uint32_t bl_image_take_chunk(bl_image_tensor *tensor, uint32_t first)
{
    uint32_t left = tensor->columns - first;

    tensor->first = first;
    tensor->columns = left < tensor->chunk ? left : tensor->chunk;
    tensor->row_bytes = bl_format_row_bytes(&tensor->format, tensor->columns);
    tensor->data_bytes = tensor->rows * tensor->row_bytes;
    return tensor->data_bytes;
}
