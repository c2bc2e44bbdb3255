/* libFuzzer target: any bytes as an image. What the validator lets through is run, in an arena of exactly the size that
 * the image names, so that the sanitizers see every step beyond it. */
#include "fuzz_common.h"

enum { ARENA_BYTES = 1 << 18, MOST_WORK = 200000 };

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
    engine.layer_done = NULL;
    engine.context = NULL;
    for (unsigned slot = 0; slot < header.slots && slot < 2; slot++) {
        pixels = arena + header.queue + slot * header.slot_bytes;
        for (uint32_t i = 0; i < header.pixels; i++) {
            pixels[i] = (uint8_t)(i * 37u % 251u * (i % 3u));
        }
        memset(pixels + bl_align4(header.pixels), 0xFF, bl_image_result_bytes(&header));
        output = bl_engine_run(&engine, &header, pixels, (uint16_t)(header.layers - 1u));
        fuzz_require((const uint8_t *)output == arena + header.output, "the logits lie where the header says");
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
