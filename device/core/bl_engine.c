#include "bl_engine.h"

#include "bl_kernels.h"

/* Pixels are converted to inputs in pieces of this many, on the stack. */
#ifndef BL_ENGINE_PIECE
#define BL_ENGINE_PIECE 32u
#endif

/* What a layer reads: floats in the arena, or pixels. */
typedef struct {
    const float *values; /* NULL: pixels */
    const uint8_t *pixels;
    const float *pixel_table;
} source;

static float pixel_value(const source *in, uint8_t pixel)
{
    return in->pixel_table != NULL ? in->pixel_table[pixel] : (float)pixel / 255.0f;
}

static float value_at(const source *in, uint32_t index)
{
    return in->values != NULL ? in->values[index] : pixel_value(in, in->pixels[index]);
}

static float relu(float x)
{
    return x > 0.0f ? x : 0.0f;
}

/* Inputs [first, first + count) against the rows from `row` on. */
static void accumulate(const bl_weights *weights, uint32_t row, const source *in, uint32_t first, uint32_t count,
                       float *acc)
{
    float piece[BL_ENGINE_PIECE];

    if (in->values != NULL) {
        weights->kernel(weights, row, in->values + first, count, acc);
        return;
    }
    while (count > 0) {
        uint32_t length = count < BL_ENGINE_PIECE ? count : BL_ENGINE_PIECE;
        for (uint32_t i = 0; i < length; i++) {
            uint8_t pixel = in->pixels[first + i];
            piece[i] = pixel != 0 ? pixel_value(in, pixel) : 0.0f; /* no division for what is omitted */
        }
        weights->kernel(weights, row, piece, length, acc);
        first += length;
        row += length;
        count -= length;
    }
}

/* Scale, bias and activation of `positions` output vectors. */
static void finish(const bl_engine *engine, const bl_image_layer *layer, uint16_t layer_count,
                   const bl_image_tensor *weights, float *out, uint32_t positions)
{
    const uint8_t *image = engine->arena;
    const uint32_t columns = weights->columns;
    const bool scaled = weights->scale_kind != BL_SCALE_NONE;
    const bool biased = layer->biases != BL_NO_INDEX;
    bl_image_tensor biases;

    if (biased) {
        bl_image_read_tensor(image, layer_count, layer->biases, &biases);
    }
    for (uint32_t o = 0; o < columns; o++) {
        const float scale = bl_image_scale(image, weights, o);
        const float bias = biased ? bl_image_bias(image, &biases, o) : 0.0f;
        float *y = out + o;
        for (uint32_t i = 0; i < positions; i++, y += columns) {
            float value = *y;
            if (scaled) {
                value = value * scale;
            }
            if (biased) {
                value = value + bias;
            }
            *y = layer->activation == BL_ACTIVATION_RELU ? relu(value) : value;
        }
    }
}

/* The part of a window that lies on the input, along one axis: kernel positions [begin, end) from `start` on. */
typedef struct {
    int32_t start;
    uint32_t begin;
    uint32_t end;
} span;

static span window_span(uint32_t position, uint8_t stride, uint8_t pad, uint8_t kernel, uint16_t in)
{
    span s;

    s.start = (int32_t)(position * stride) - pad;
    s.begin = s.start < 0 ? (uint32_t)-s.start : 0;
    s.end = s.start + kernel > (int32_t)in ? (uint32_t)((int32_t)in - s.start) : kernel;
    return s;
}

static void run_convolution(const bl_weights *weights, const bl_image_layer *l, const source *in, float *out)
{
    const uint32_t channels = l->in.channels;

    for (uint32_t oy = 0; oy < l->out.height; oy++) {
        const span rows = window_span(oy, l->stride_y, l->pad_top, l->kernel_height, l->in.height);
        for (uint32_t ox = 0; ox < l->out.width; ox++, out += l->out.channels) {
            const span columns = window_span(ox, l->stride_x, l->pad_left, l->kernel_width, l->in.width);
            for (uint32_t ky = rows.begin; ky < rows.end; ky++) {
                const uint32_t y = (uint32_t)(rows.start + (int32_t)ky);
                const uint32_t x = (uint32_t)(columns.start + (int32_t)columns.begin);
                /* Along a row of the window inputs and weights both lie one after another. */
                accumulate(weights, (ky * l->kernel_width + columns.begin) * channels, in,
                           (y * l->in.width + x) * channels, (columns.end - columns.begin) * channels, out);
            }
        }
    }
}

static void run_pool(const bl_image_layer *l, const source *in, float *out)
{
    const bool average = l->kind == BL_LAYER_AVERAGE_POOL;
    const uint32_t channels = l->in.channels;

    for (uint32_t oy = 0; oy < l->out.height; oy++) {
        const span rows = window_span(oy, l->stride_y, l->pad_top, l->kernel_height, l->in.height);
        for (uint32_t ox = 0; ox < l->out.width; ox++, out += channels) {
            const span columns = window_span(ox, l->stride_x, l->pad_left, l->kernel_width, l->in.width);
            const float count = (float)((rows.end - rows.begin) * (columns.end - columns.begin));
            bool first = true;
            for (uint32_t ky = rows.begin; ky < rows.end; ky++) {
                const uint32_t y = (uint32_t)(rows.start + (int32_t)ky);
                for (uint32_t kx = columns.begin; kx < columns.end; kx++, first = false) {
                    const uint32_t x = (uint32_t)(columns.start + (int32_t)kx);
                    const uint32_t at = (y * l->in.width + x) * channels;
                    for (uint32_t c = 0; c < channels; c++) {
                        const float value = value_at(in, at + c);
                        if (average) {
                            out[c] = (first ? 0.0f : out[c]) + value;
                        } else if (first || value > out[c]) {
                            out[c] = value;
                        }
                    }
                }
            }
            for (uint32_t c = 0; average && c < channels; c++) {
                out[c] = out[c] / count;
            }
        }
    }
}

static void run_weighted(const bl_engine *engine, uint16_t layer_count, const bl_image_layer *l, const source *in,
                         float *out, uint32_t outputs)
{
    bl_image_tensor tensor;
    bl_weights weights;
    float *table = NULL;

    bl_image_read_tensor(engine->arena, layer_count, l->weights, &tensor);
    if (l->table != BL_NO_OFFSET) {
        table = (float *)(void *)(engine->arena + l->table);
    }
    bl_kernels_prepare(&weights, engine->arena, &tensor, table);
    for (uint32_t i = 0; i < outputs; i++) {
        out[i] = 0.0f;
    }
    if (l->kind == BL_LAYER_DENSE) {
        accumulate(&weights, 0, in, 0, tensor.rows, out);
    } else {
        run_convolution(&weights, l, in, out);
    }
    finish(engine, l, layer_count, &tensor, out, outputs / tensor.columns);
}

float *bl_engine_run(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels,
                     uint16_t last_layer)
{
    float *out = NULL;

    for (uint16_t index = 0; index <= last_layer && index < header->layers; index++) {
        bl_image_layer l;
        source in;
        uint32_t outputs;

        bl_image_read_layer(engine->arena, index, &l);
        in.values = NULL;
        in.pixels = pixels;
        in.pixel_table = engine->pixel_table;
        if (l.input != BL_NO_OFFSET) {
            in.values = (const float *)(const void *)(engine->arena + l.input);
        }
        out = (float *)(void *)(engine->arena + l.output);
        outputs = bl_shape_count(&l.out);
        switch (l.kind) {
        case BL_LAYER_DENSE:
        case BL_LAYER_CONV2D:
            run_weighted(engine, header->layers, &l, &in, out, outputs);
            break;
        case BL_LAYER_MAX_POOL:
        case BL_LAYER_AVERAGE_POOL:
            run_pool(&l, &in, out);
            break;
        default:
            for (uint32_t i = 0; i < outputs; i++) {
                out[i] = relu(value_at(&in, i));
            }
            break;
        }
        if (engine->layer_done != NULL) {
            engine->layer_done(engine->context, index, out, outputs);
        }
    }
    return out;
}

void bl_engine_fill_pixel_table(float table[256])
{
    for (unsigned p = 0; p < 256; p++) {
        table[p] = (float)p / 255.0f;
    }
}

uint32_t bl_engine_argmax(const float *values, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < count; i++) {
        if (values[i] > values[best]) {
            best = i;
        }
    }
    return best;
}
