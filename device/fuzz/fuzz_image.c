/* libFuzzer target: any bytes as an image. What the validator lets through is run, in an arena of exactly the size that
 * the image names, so that the sanitizers see every step beyond it. */
#include "fuzz_common.h"

enum { ARENA_BYTES = 1 << 18, MOST_WORK = 200000 };

/* All layers for one image of the batch, with streamed weights whose codes are all 0. */
static const float *run_streamed(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels,
                                 uint16_t image)
{
    const float *output = NULL;
    uint64_t streamed = 0;

    for (uint16_t layer = 0; layer < header->layers; layer++) {
        bl_image_layer record;
        bl_image_tensor weights;
        if (!bl_image_is_streamed(engine->arena, header->layers, layer)) {
            output = bl_engine_run(engine, header, pixels, image, layer, layer);
            continue;
        }
        bl_image_read_layer(engine->arena, layer, &record);
        bl_image_read_tensor(engine->arena, header->layers, record.weights, &weights);
        for (uint32_t column = 0; column < weights.columns; column += weights.chunk) {
            bl_image_tensor chunk = weights;
            uint32_t bytes = bl_image_take_chunk(&chunk, column);
            memset(engine->arena + weights.data, 0, bytes);
            streamed += bytes;
            output = bl_engine_run_chunk(engine, header, pixels, image, layer, column);
        }
    }
    fuzz_require(streamed == header->streamed, "the chunks are what the header says");
    return output;
}

static void run(const uint8_t *image, size_t size)
{
    bl_image_header header;
    bl_engine engine;
    uint8_t *arena;
    uint8_t *pixels;
    const float *output;

    bl_image_read_header(image, &header);
    fuzz_require(header.arena_bytes <= ARENA_BYTES && header.arena_bytes >= size, "the arena holds the image");
    if (fuzz_work(image) > MOST_WORK) {
        return;
    }
    arena = malloc(header.arena_bytes);
    fuzz_require(arena != NULL, "there is memory");
    memset(arena, 0xA5, header.arena_bytes);
    memcpy(arena, image, size);
    engine.arena = arena;
    engine.pixel_table = NULL;
    engine.after_layer = NULL;
    engine.context = NULL;
    for (unsigned slot = 0; slot < header.slots && slot < 2; slot++) {
        pixels = arena + header.queue + slot * header.slot_bytes;
        for (uint32_t i = 0; i < header.pixels; i++) {
            pixels[i] = (uint8_t)(i * 37u % 251u * (i % 3u));
        }
        memset(pixels + bl_align4(header.pixels), 0xFF, bl_image_result_bytes(&header));
        output = header.streamed != 0 ? run_streamed(&engine, &header, pixels, (uint16_t)(header.slots - 1u))
                                      : bl_engine_run(&engine, &header, pixels, 0, 0, (uint16_t)(header.layers - 1u));
        fuzz_require(header.streamed != 0 || (const uint8_t *)output == arena + header.output,
                     "the logits lie where the header says");
        fuzz_require(bl_engine_argmax(output, header.logits) < header.logits, "the label is a class");
    }
    fuzz_require(memcmp(arena, image, size) == 0, "the image is only read");
    free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *image = malloc(size > 0 ? size : 1);
    uint32_t details[2];

    fuzz_require(image != NULL, "there is memory");
    memcpy(image, data, size);
    (void)bl_image_validate(image, (uint32_t)size, ARENA_BYTES, details);
    fuzz_seal(image, size);
    if (bl_image_validate(image, (uint32_t)size, ARENA_BYTES, details) == BL_OK) {
        run(image, size);
    }
    free(image);
    return 0;
}
