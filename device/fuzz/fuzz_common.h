/* What the fuzz targets share. */
#ifndef FUZZ_COMMON_H
#define FUZZ_COMMON_H

#include <stdio.h>
#include <stdlib.h>

#include "../core/bl_coding.h"
#include "../core/bl_engine.h"
#include "../core/bl_frame.h"

/* A valid image may ask for more work than a fuzzer has time for: about how many steps one input takes. */
static inline uint64_t fuzz_work(const uint8_t *image)
{
    bl_image_header header;
    uint64_t work = 0;

    bl_image_read_header(image, &header);
    for (uint16_t i = 0; i < header.layers; i++) {
        bl_image_layer layer;
        bl_image_tensor weights;
        bl_image_read_layer(image, i, &layer);
        uint64_t outputs = bl_shape_count(&layer.out);
        if (layer.weights != BL_NO_INDEX) {
            bl_image_read_tensor(image, header.layers, layer.weights, &weights);
            outputs *= weights.rows * (layer.pool != 0 ? (uint64_t)layer.pool_height * layer.pool_width : 1u);
            work += (layer.table != BL_NO_OFFSET ? (uint64_t)1 << weights.format.width : 0) *
                    (weights.chunk != 0 ? weights.columns / weights.chunk + 1u : 1u);
            work += weights.chunk != 0 ? weights.columns : 0;
        } else if (layer.kind != BL_LAYER_RELU) {
            outputs *= (uint64_t)layer.kernel_height * layer.kernel_width;
        }
        work += outputs;
    }
    return work;
}

/* Give an image the length and the CRC that it should have, so that the fuzzer gets beyond these checks. */
static inline void fuzz_seal(uint8_t *image, size_t length)
{
    if (length >= BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES) {
        bl_store_u32(image + 8, (uint32_t)length);
        bl_store_u32(image + length - 4, bl_frame_crc32(0, image, length - 4));
    }
}

/* Lengths of a complete code, a nibble a symbol: one leaf of a tree is split for each byte, which says which. Random lengths
 * are hardly ever such a code. */
static inline void fuzz_code_lengths(const uint8_t *data, size_t size, uint8_t lengths[BL_CODE_LENGTHS_BYTES])
{
    uint8_t depths[BL_CODE_SYMBOLS] = {0};
    size_t leaves = 1;

    for (size_t i = 0; i < size && leaves < BL_CODE_SYMBOLS; i++) {
        size_t leaf = data[i] % leaves;
        if (depths[leaf] < BL_MAX_CODE_BITS) {
            depths[leaves++] = ++depths[leaf];
        }
    }
    if (leaves == 1) {
        depths[0] = 1;
    }
    memset(lengths, 0, BL_CODE_LENGTHS_BYTES);
    for (size_t i = 0; i < leaves; i++) {
        size_t symbol = (i * 167u + 13u) % BL_CODE_SYMBOLS; /* not in the order of the lengths */
        lengths[symbol / 2u] |= (uint8_t)(depths[i] << 4u * (symbol & 1u));
    }
}

static inline void fuzz_require(bool condition, const char *what)
{
    if (!condition) {
        (void)fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif /* FUZZ_COMMON_H */
