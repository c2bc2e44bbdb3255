/* What the files that check images share; nobody else includes this. */
#ifndef BL_IMAGE_CHECK_H
#define BL_IMAGE_CHECK_H

#include "bl_image_fields.h"

typedef struct {
    const uint8_t *image;
    bl_image_header header;
    uint32_t data_begin; /* the tensors' data lie in [data_begin, data_end) of the image */
    uint32_t data_end;
    uint64_t streamed;   /* bytes of chunks of the layers checked so far */
    uint32_t *details;
} bl_checker;

static inline bl_status bl_check_refuse(const bl_checker *c, bl_status status, uint32_t first, uint32_t second)
{
    c->details[0] = first;
    c->details[1] = second;
    return status;
}

static inline bool bl_check_all_zero(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* H · W · C in `count`; false if a dimension is 0 or the elements, four bytes each, would not fit 32 bits. */
static inline bool bl_check_shape(const bl_shape *shape, uint32_t *count)
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
static inline bool bl_check_inside(uint32_t offset, uint32_t bytes, uint32_t begin, uint32_t end)
{
    return offset >= begin && offset <= end && bytes <= end - offset;
}

/* Both regions lie below 2^32. */
static inline bool bl_check_overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* A region of activations, tables, tiles or chunks: aligned, behind the image, in the arena, and not over the queue. */
static inline bool bl_check_region(const bl_checker *c, uint32_t offset, uint32_t bytes)
{
    const bl_image_header *h = &c->header;

    return offset % BL_ARENA_ALIGNMENT == 0 && bl_check_inside(offset, bytes, h->length, h->arena_bytes) &&
           !bl_check_overlap(offset, bytes, h->queue, h->slots * h->slot_bytes);
}

/* Check layer `index`; the tensors, and the layers before, are checked. */
bl_status bl_image_check_layer(bl_checker *c, uint16_t index);

#endif /* BL_IMAGE_CHECK_H */
