/* Runs the layers of a valid image, in the order of operations of docs/arithmetic.md. */
#ifndef BL_ENGINE_H
#define BL_ENGINE_H

#include "bl_image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bl_engine bl_engine;

/* Called when a layer has written its output; may read and change it. Of another type than
 * bl_port's layer_done, which it calls: where the stack is bounded, calls through pointers are told apart by their types
 * (docs/device.md). */
typedef void bl_layer_hook(const bl_engine *engine, uint16_t layer, float *output, uint32_t count);

struct bl_engine {
    uint8_t *arena;             /* aligned to 4 bytes; a valid image at offset 0; header.arena_bytes long */
    const float *pixel_table; /* 256 quotients fl(p / 255), or NULL: then each pixel is divided */
    bl_layer_hook *after_layer; /* or NULL */
    void *context;              /* for after_layer */
};

/* Run the resident layers `first_layer` to `last_layer` for image `image` of the batch (0, unless weights are streamed),
 * whose pixels are `pixels` (u8, row-major H, W, C). Returns the last one's output, in the arena. */
float *bl_engine_run(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels, uint16_t image,
                     uint16_t first_layer, uint16_t last_layer);

/* Run one chunk of a layer with streamed weights, which lies in its place in the arena and has been checked: the output
 * channels from `first_column` on. Returns the layer's whole output; after_layer is not called. */
float *bl_engine_run_chunk(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels,
                           uint16_t image, uint16_t layer, uint32_t first_column);

/* Fill a pixel table: table[p] = fl(p / 255). */
void bl_engine_fill_pixel_table(float table[256]);

/* The index of the greatest value, the lowest of equal ones. A NaN is never greater; count is 1 or more. */
uint32_t bl_engine_argmax(const float *values, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif /* BL_ENGINE_H */
