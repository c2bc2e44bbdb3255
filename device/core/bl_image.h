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
    uint32_t streamed;    /* bytes of weights that travel with each batch; 0: all are in the image */
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
    uint8_t pool;     /* fused behind a convolution: BL_LAYER_MAX_POOL, BL_LAYER_AVERAGE_POOL, or 0; then all below to
                       * map_width are 0 */
    uint8_t pool_height;
    uint8_t pool_width;
    uint8_t pool_stride_y;
    uint8_t pool_stride_x;
    uint8_t pool_pad_top;
    uint8_t pool_pad_left;
    uint16_t map_height;   /* the convolution's own output, which the pooling reads */
    uint16_t map_width;
    uint32_t tile;         /* arena offset of one pooling window of it, or BL_NO_OFFSET */
    uint32_t batch_stride; /* from the output for one image of a batch to the next one's; 0: they share one */
} bl_image_layer;

typedef struct {
    bl_format format;
    uint8_t layout;
    uint8_t scale_kind;
    uint8_t granularity;
    uint32_t rows;        /* inputs per output; biases: 1 */
    uint32_t columns;     /* outputs */
    uint32_t row_bytes;   /* streamed: of a whole chunk */
    uint32_t data;        /* offset from the start of the image; streamed: of the chunk, from that of the arena */
    uint32_t data_bytes;  /* streamed: of a whole chunk */
    uint32_t scales;      /* offset, or BL_NO_OFFSET */
    uint32_t zero_points; /* offset, or BL_NO_OFFSET */
    uint32_t groups;
    uint32_t chunk;       /* columns a chunk; 0: not streamed */
    uint32_t crc;         /* of all chunks; 0: not streamed */
    uint32_t first;       /* column of the whole tensor that is column 0 here: 0, but for bl_image_take_chunk */
} bl_image_tensor;

/* Check every field of an image against its bounds before it is used. `image` holds `length` bytes and nothing beyond
 * them is read; `arena_bytes` is what the device has. Returns BL_OK or why the image is refused, with two details as
 * BL_STATUS_TEXTS says. Details of padding that is not zero: BL_BAD_CODE with the row's last element. */
bl_status bl_image_validate(const uint8_t *image, uint32_t length, uint32_t arena_bytes, uint32_t details[2]);

/* Accessors. The image must be valid, and `layer` and `tensor` numbers of it. */
void bl_image_read_header(const uint8_t *image, bl_image_header *header);
void bl_image_read_layer(const uint8_t *image, uint16_t layer, bl_image_layer *record);
void bl_image_read_tensor(const uint8_t *image, uint16_t layer_count, uint16_t tensor, bl_image_tensor *record);

/* Do the weights of `layer` travel with each batch? */
bool bl_image_is_streamed(const uint8_t *image, uint16_t layer_count, uint16_t layer);

/* The last layer of the stage that `layer` is of: itself if streamed, else the last one before a streamed layer. */
uint16_t bl_image_stage_end(const uint8_t *image, uint16_t layer_count, uint16_t layer);

/* Make a streamed tensor that of its chunk whose first column is `first`. Returns the bytes of the chunk. */
uint32_t bl_image_take_chunk(bl_image_tensor *tensor, uint32_t first);

/* Is every code of a tensor, whose data lie at `data`, a finite number, and all padding zero? BL_OK, or BL_BAD_CODE with the
 * element in `element`, counted within the tensor; of padding the row's last one. */
bl_status bl_image_check_codes(const bl_image_tensor *tensor, const uint8_t *data, uint32_t *element);

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
