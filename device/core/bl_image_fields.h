/* Byte offsets of an image's fields (docs/model.md), for the files that read and check it; nobody else includes this. */
#ifndef BL_IMAGE_FIELDS_H
#define BL_IMAGE_FIELDS_H

#include "bl_image.h"

enum {
    H_VERSION = 4, H_HEADER_BYTES = 6, H_LENGTH = 8, H_LAYERS = 12, H_TENSORS = 14, H_LAYER_BYTES = 16,
    H_TENSOR_BYTES = 18, H_INPUT = 20, H_RESERVED_1 = 26, H_ARENA = 28, H_QUEUE = 32, H_SLOTS = 36, H_RESERVED_2 = 38,
    H_SLOT_BYTES = 40, H_OUTPUT = 44, H_LOGITS = 48, H_STREAMED = 52, H_RESERVED_3 = 56
};
enum {
    L_KIND = 0, L_ACTIVATION = 1, L_KERNEL = 2, L_STRIDE = 4, L_PADDING = 6, L_IN = 8, L_OUT = 14, L_WEIGHTS = 20,
    L_BIASES = 22, L_INPUT = 24, L_OUTPUT = 28, L_TABLE = 32, L_POOL = 36, L_RESERVED = 37, L_POOL_KERNEL = 38,
    L_POOL_STRIDE = 40, L_POOL_PADDING = 42, L_MAP = 44, L_TILE = 48, L_BATCH_STRIDE = 52
};
enum {
    T_LAYOUT = 7, T_SCALE_KIND = 10, T_GRANULARITY = 11, T_ROWS = 12, T_COLUMNS = 16, T_ROW_BYTES = 20, T_DATA = 24,
    T_DATA_BYTES = 28, T_SCALES = 32, T_ZERO_POINTS = 36, T_GROUPS = 40, T_CHUNK = 44, T_CRC = 48
};

static inline const uint8_t *bl_image_layer_at(const uint8_t *image, uint16_t layer)
{
    return image + BL_IMAGE_HEADER_BYTES + (uint32_t)layer * BL_LAYER_RECORD_BYTES;
}

static inline const uint8_t *bl_image_tensor_at(const uint8_t *image, uint16_t layer_count, uint16_t tensor)
{
    return bl_image_layer_at(image, layer_count) + (uint32_t)tensor * BL_TENSOR_RECORD_BYTES;
}

#endif /* BL_IMAGE_FIELDS_H */
