/* The functions of the shared library that Python calls (host/bitloop/native/core.py). Buffers are the caller's. */
#ifndef NATIVE_LIBRARY_H
#define NATIVE_LIBRARY_H

#include "../../core/bl_image.h"

/* Call once, before any other. */
void bl_native_init(void);

/* The logits of `images` inputs, one after another, as bits. `image` must be valid; `arena` holds the header's arena
 * bytes, is aligned to 4 and private to the call, so that several threads may work at once. */
void bl_native_evaluate(const uint8_t *image, uint32_t length, uint8_t *arena, const uint8_t *pixels, uint32_t images,
                        uint32_t *logits);

/* The output of `layer` for one input, as bits. Returns its number of elements; writes no more than `capacity`. */
uint32_t bl_native_activations(const uint8_t *image, uint32_t length, uint8_t *arena, const uint8_t *pixels,
                               uint16_t layer, uint32_t *values, uint32_t capacity);

/* bl_format_decode and bl_format_is_finite over arrays. */
void bl_native_decode(const bl_format *format, const uint32_t *codes, uint32_t count, int32_t zero_point,
                      float *elements);
void bl_native_finite(const bl_format *format, const uint32_t *codes, uint32_t count, uint8_t *finite);

/* The first `count` codes of a row. Returns how many bytes were read. */
uint32_t bl_native_read_row(const bl_format *format, const uint8_t *row, uint32_t count, uint32_t *codes);

#endif /* NATIVE_LIBRARY_H */
