/* What the host's Python binds besides the core itself: whole batches in one call. */
#include "../../core/bl_engine.h"
#include "native_library.h"

static float pixel_table[256];

static void prepare(bl_engine *engine, bl_image_header *header, const uint8_t *image, uint32_t length, uint8_t *arena)
{
    memcpy(arena, image, length);
    bl_image_read_header(arena, header);
    engine->arena = arena;
    engine->pixel_table = pixel_table;
    engine->after_layer = NULL;
    engine->context = NULL;
}

void bl_native_init(void)
{
    bl_engine_fill_pixel_table(pixel_table);
}

void bl_native_evaluate(const uint8_t *image, uint32_t length, uint8_t *arena, const uint8_t *pixels, uint32_t images,
                        uint32_t *logits)
{
    bl_engine engine;
    bl_image_header header;

    prepare(&engine, &header, image, length, arena);
    for (uint32_t i = 0; i < images; i++) {
        const float *output = bl_engine_run(&engine, &header, pixels, 0, 0, (uint16_t)(header.layers - 1u));
        for (uint32_t k = 0; k < header.logits; k++) {
            *logits++ = bl_float_emitted(output[k]);
        }
        pixels += header.pixels;
    }
}

uint32_t bl_native_activations(const uint8_t *image, uint32_t length, uint8_t *arena, const uint8_t *pixels,
                               uint16_t layer, uint32_t *values, uint32_t capacity)
{
    bl_engine engine;
    bl_image_header header;
    bl_image_layer record;
    const float *output;
    uint32_t count;

    prepare(&engine, &header, image, length, arena);
    bl_image_read_layer(arena, layer, &record);
    count = bl_shape_count(&record.out);
    output = bl_engine_run(&engine, &header, pixels, 0, 0, layer);
    for (uint32_t i = 0; i < count && i < capacity; i++) {
        values[i] = bl_float_emitted(output[i]);
    }
    return count;
}

void bl_native_decode(const bl_format *format, const uint32_t *codes, uint32_t count, int32_t zero_point,
                      float *elements)
{
    for (uint32_t i = 0; i < count; i++) {
        elements[i] = bl_format_decode(format, codes[i], zero_point);
    }
}

void bl_native_finite(const bl_format *format, const uint32_t *codes, uint32_t count, uint8_t *finite)
{
    for (uint32_t i = 0; i < count; i++) {
        finite[i] = bl_format_is_finite(format, codes[i]) ? 1 : 0;
    }
}

uint32_t bl_native_read_row(const bl_format *format, const uint8_t *row, uint32_t count, uint32_t *codes)
{
    bl_format_reader reader;

    bl_format_reader_init(&reader, format, row);
    for (uint32_t i = 0; i < count; i++) {
        codes[i] = bl_format_read(&reader);
    }
    return (uint32_t)(reader.next - row);
}
