/* Images (docs/model.md): validation of all that may be hostile, and access to what is valid. */
#ifndef BL_IMAGE_H
#define BL_IMAGE_H

#include "bl_format.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef BL_MAX_LAYERS
#define BL_MAX_LAYERS 256
#endif
#ifndef BL_MAX_TENSORS
#define BL_MAX_TENSORS 512
#endif

typedef struct {
    uint16_t height;
    uint16_t width;
    uint16_t channels;
} bl_shape;

typedef struct {
    uint32_t length;      /* bytes, CRC included */
    uint16_t layers;
    uint16_t tensors;
    bl_shape input;       /* of u8 pixels */
    uint32_t pixels;      /* bytes of one input image */
    uint32_t arena_bytes; /* image, activations, tables, queue */
    uint32_t queue;       /* arena offset of slot 0 */
    uint16_t slots;
    uint32_t slot_bytes;
    uint32_t output;      /* arena offset of the logits */
    uint32_t logits;
} bl_image_header;

typedef struct {
    uint8_t kind;
    uint8_t activation;
    uint8_t kernel_height;
    uint8_t kernel_width;
    uint8_t stride_y;
    uint8_t stride_x;
    uint8_t pad_top;
    uint8_t pad_left;
    bl_shape in;
    bl_shape out;
    uint16_t weights; /* tensor, or BL_NO_INDEX */
    uint16_t biases;  /* tensor, or BL_NO_INDEX */
    uint32_t input;   /* arena offset, or BL_NO_OFFSET: the pixels */
    uint32_t output;  /* arena offset */
    uint32_t table;   /* arena offset, or BL_NO_OFFSET */
} bl_image_layer;

typedef struct {
    bl_format format;
    uint8_t layout;
    uint8_t scale_kind;
    uint8_t granularity;
    uint32_t rows;        /* inputs per output; biases: 1 */
    uint32_t columns;     /* outputs */
    uint32_t row_bytes;
    uint32_t data;        /* offset from the start of the image */
    uint32_t data_bytes;
    uint32_t scales;      /* offset, or BL_NO_OFFSET */
    uint32_t zero_points; /* offset, or BL_NO_OFFSET */
    uint32_t groups;
} bl_image_tensor;

/* Check every field of an image against its bounds before it is used. `image` holds `length` bytes and nothing beyond
 * them is read; `arena_bytes` is what the device has. Returns BL_OK or why the image is refused, with two details as
 * BL_STATUS_TEXTS says. Details of padding that is not zero: BL_BAD_CODE with the row's last element. */
bl_status bl_image_validate(const uint8_t *image, uint32_t length, uint32_t arena_bytes, uint32_t details[2]);

/* Accessors. The image must be valid, and `layer` and `tensor` numbers of it. */
void bl_image_read_header(const uint8_t *image, bl_image_header *header);
void bl_image_read_layer(const uint8_t *image, uint16_t layer, bl_image_layer *record);
void bl_image_read_tensor(const uint8_t *image, uint16_t layer_count, uint16_t tensor, bl_image_tensor *record);

/* Elements of a shape: at most 2^30 in a valid image. */
static inline uint32_t bl_shape_count(const bl_shape *shape)
{
    return (uint32_t)shape->height * shape->width * shape->channels;
}

/* The element of column `column` in row 0 times its scale, if it has one: a bias. */
float bl_image_bias(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column);

/* Scale and zero point of a column; 1 and 0 where the tensor has none. */
float bl_image_scale(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column);
int32_t bl_image_zero_point(const uint8_t *image, const bl_image_tensor *tensor, uint32_t column);

/* Bytes of a full result record in a slot: label, reserved, ticks, logits, ticks a layer. */
static inline uint32_t bl_image_result_bytes(const bl_image_header *header)
{
    return 12u + 4u * header->logits + 4u * header->layers;
}

#ifdef __cplusplus
}
#endif

#endif /* BL_IMAGE_H */
