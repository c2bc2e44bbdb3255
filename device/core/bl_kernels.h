/* The inner loops: acc[o] = fl(acc[o] + fl(x[i] · w[i][o])) over rows of packed weights. */
#ifndef BL_KERNELS_H
#define BL_KERNELS_H

#include "bl_image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bl_weights bl_weights;

/* Add the terms of `count` inputs x, whose weights are the rows from `row` on, to the accumulators of all outputs.
 * Inputs are taken in ascending order; a zero input is omitted with its whole row. */
typedef void bl_kernel(const bl_weights *weights, uint32_t row, const float *x, uint32_t count, float *acc);

struct bl_weights {
    bl_kernel *kernel;
    const uint8_t *image;
    const float *table;   /* 2^width elements, or NULL */
    bl_image_tensor tensor;
};

/* Choose the kernel for a tensor. `table` (2^width elements) is filled and used if it is not NULL and the tensor has
 * no more than one zero point; else codes are decoded as they are read. */
void bl_kernels_prepare(bl_weights *weights, const uint8_t *image, const bl_image_tensor *tensor, float *table);

#ifdef __cplusplus
}
#endif

#endif /* BL_KERNELS_H */
