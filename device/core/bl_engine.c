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

/* A layer's weights, or a chunk of them, and what comes behind the sums. */
typedef struct {
    bl_weights weights;
    bl_image_tensor biases;
    const uint8_t *image;
    bool scaled;
    bool biased;
    bool rectified;
} parameters;

static void prepare(parameters *p, const bl_engine *engine, const bl_image_header *header, const bl_image_layer *l,
                    uint32_t first)
{
    bl_image_tensor tensor;

    bl_image_read_tensor(engine->arena, header->layers, l->weights, &tensor);
    if (tensor.chunk != 0) {
        (void)bl_image_take_chunk(&tensor, first);
    }
    p->image = engine->arena;
    p->scaled = tensor.scale_kind != BL_SCALE_NONE;
    p->biased = l->biases != BL_NO_INDEX;
    p->rectified = l->activation == BL_ACTIVATION_RELU;
    if (p->biased) {
        bl_image_read_tensor(engine->arena, header->layers, l->biases, &p->biases);
    }
    bl_kernels_prepare(&p->weights, engine->arena, &tensor,
                       l->table != BL_NO_OFFSET ? (float *)(void *)(engine->arena + l->table) : NULL);
}

static void clear(float *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        values[i] = 0.0f;
    }
}

/* Scale, bias and activation of `positions` vectors of outputs, `stride` elements from one to the next. */
static void finish(const parameters *p, float *out, uint32_t positions, uint32_t stride)
{
    const bl_image_tensor *weights = &p->weights.tensor;

    for (uint32_t o = 0; o < weights->columns; o++) {
        const float scale = bl_image_scale(p->image, weights, o);
        const float bias = p->biased ? bl_image_bias(p->image, &p->biases, weights->first + o) : 0.0f;
        float *y = out + o;
        for (uint32_t i = 0; i < positions; i++, y += stride) {
            float value = *y;
            if (p->scaled) {
                value = value * scale;
            }
            if (p->biased) {
                value = value + bias;
            }
            *y = p->rectified ? relu(value) : value;
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

/* Input position of the first kernel position of a span. */
static uint32_t span_first(const span *s)
{
    return (uint32_t)(s->start + (int32_t)s->begin);
}

/* The sums of one output position of a convolution, (y, x) of its own map. */
static void convolve(const bl_weights *weights, const bl_image_layer *l, const source *in, uint32_t y, uint32_t x,
                     float *out)
{
    const uint32_t channels = l->in.channels;
    const span rows = window_span(y, l->stride_y, l->pad_top, l->kernel_height, l->in.height);
    const span columns = window_span(x, l->stride_x, l->pad_left, l->kernel_width, l->in.width);
    uint32_t at = (span_first(&rows) * l->in.width + span_first(&columns)) * channels;
    uint32_t row = (rows.begin * l->kernel_width + columns.begin) * channels;

    clear(out, weights->tensor.columns);
    for (uint32_t ky = rows.begin; ky < rows.end; ky++) {
        /* Along a row of the window inputs and weights both lie one after another. */
        accumulate(weights, row, in, at, (columns.end - columns.begin) * channels, out);
        at += (uint32_t)l->in.width * channels;
        row += (uint32_t)l->kernel_width * channels;
    }
}

static void run_convolution(const parameters *p, const bl_image_layer *l, const source *in, float *out)
{
    float *at = out;

    for (uint32_t y = 0; y < l->out.height; y++) {
        for (uint32_t x = 0; x < l->out.width; x++, at += l->out.channels) {
            convolve(&p->weights, l, in, y, x, at);
        }
    }
    finish(p, out, (uint32_t)l->out.height * l->out.width, l->out.channels);
}

/* One more value of a window. */
static void pool_into(float *pooled, float value, bool first, bool average)
{
    if (average) {
        *pooled = (first ? 0.0f : *pooled) + value;
    } else if (first || value > *pooled) {
        *pooled = value;
    }
}

/* A window of the convolution's map is computed into the tile, then pooled into one output position. */
static void run_pooled_convolution(const parameters *p, const bl_image_layer *l, const source *in, float *tile,
                                   float *out)
{
    const bool average = l->pool == BL_LAYER_AVERAGE_POOL;
    const uint32_t columns = p->weights.tensor.columns;

    for (uint32_t oy = 0; oy < l->out.height; oy++) {
        const span rows = window_span(oy, l->pool_stride_y, l->pool_pad_top, l->pool_height, l->map_height);
        for (uint32_t ox = 0; ox < l->out.width; ox++, out += l->out.channels) {
            const span across = window_span(ox, l->pool_stride_x, l->pool_pad_left, l->pool_width, l->map_width);
            const uint32_t positions = (rows.end - rows.begin) * (across.end - across.begin);
            float *at = tile;
            for (uint32_t ky = rows.begin; ky < rows.end; ky++) {
                for (uint32_t kx = across.begin; kx < across.end; kx++, at += columns) {
                    convolve(&p->weights, l, in, (uint32_t)(rows.start + (int32_t)ky),
                             (uint32_t)(across.start + (int32_t)kx), at);
                }
            }
            finish(p, tile, positions, columns);
            at = tile;
            for (uint32_t i = 0; i < positions; i++) {
                for (uint32_t c = 0; c < columns; c++) {
                    pool_into(&out[c], *at++, i == 0, average);
                }
            }
            for (uint32_t c = 0; average && c < columns; c++) {
                out[c] = out[c] / (float)positions;
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
                        pool_into(&out[c], value_at(in, at + c), first, average);
                    }
                }
            }
            for (uint32_t c = 0; average && c < channels; c++) {
                out[c] = out[c] / count;
            }
        }
    }
}

/* Columns of the weights from `first` on: all of them, or those of a chunk. */
static void run_weighted(const bl_engine *engine, const bl_image_header *header, const bl_image_layer *l,
                         const source *in, uint32_t first, float *out)
{
    parameters p;

    prepare(&p, engine, header, l, first);
    out += first;
    if (l->kind == BL_LAYER_DENSE) {
        clear(out, p.weights.tensor.columns);
        accumulate(&p.weights, 0, in, 0, p.weights.tensor.rows, out);
        finish(&p, out, 1, p.weights.tensor.columns);
    } else if (l->pool != 0) {
        run_pooled_convolution(&p, l, in, (float *)(void *)(engine->arena + l->tile), out);
    } else {
        run_convolution(&p, l, in, out);
    }
}

/* Read a layer's record, and find its input and output for image `image` of the batch. Returns the output. */
static float *begin_layer(const bl_engine *engine, const uint8_t *pixels, uint16_t index, uint16_t image,
                          bl_image_layer *l, source *in)
{
    in->values = NULL;
    in->pixels = pixels;
    in->pixel_table = engine->pixel_table;
    if (index > 0) {
        bl_image_read_layer(engine->arena, (uint16_t)(index - 1u), l);
        in->values = (const float *)(const void *)(engine->arena + l->output + image * l->batch_stride);
    }
    bl_image_read_layer(engine->arena, index, l);
    return (float *)(void *)(engine->arena + l->output + image * l->batch_stride);
}

float *bl_engine_run(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels, uint16_t image,
                     uint16_t first_layer, uint16_t last_layer)
{
    float *out = NULL;

    for (uint16_t index = first_layer; index <= last_layer; index++) {
        bl_image_layer l;
        source in;
        uint32_t outputs;

        out = begin_layer(engine, pixels, index, image, &l, &in);
        outputs = bl_shape_count(&l.out);
        switch (l.kind) {
        case BL_LAYER_DENSE:
        case BL_LAYER_CONV2D: run_weighted(engine, header, &l, &in, 0, out); break;
        case BL_LAYER_MAX_POOL:
        case BL_LAYER_AVERAGE_POOL: run_pool(&l, &in, out); break;
        default:
            for (uint32_t i = 0; i < outputs; i++) {
                out[i] = relu(value_at(&in, i));
            }
            break;
        }
        if (engine->after_layer != NULL) {
            engine->after_layer(engine, index, out, outputs);
        }
    }
    return out;
}

float *bl_engine_run_chunk(const bl_engine *engine, const bl_image_header *header, const uint8_t *pixels,
                           uint16_t image, uint16_t layer, uint32_t first_column)
{
    bl_image_layer l;
    source in;
    float *out = begin_layer(engine, pixels, layer, image, &l, &in);

    run_weighted(engine, header, &l, &in, first_column, out);
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
