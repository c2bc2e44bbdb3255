#include "bl_image_check.h"

/* Does `tensor` exist, and has it so many rows and columns? */
static bool tensor_fits(const bl_checker *c, uint16_t tensor, uint32_t rows, uint32_t columns)
{
    bl_image_tensor t;

    if (tensor >= c->header.tensors) {
        return false;
    }
    bl_image_read_tensor(c->image, c->header.layers, tensor, &t);
    return t.rows == rows && t.columns == columns;
}

static bool tensor_is_streamed(const bl_checker *c, uint16_t tensor)
{
    return bl_load_u32(bl_image_tensor_at(c->image, c->header.layers, tensor) + T_CHUNK) != 0;
}

/* Kernel, stride, padding and output of a layer with a window along one axis. */
static bool window_fits(uint8_t kernel, uint8_t stride, uint8_t pad, uint16_t in, uint16_t out)
{
    /* The last window must begin before the input ends; the first one ends behind its begin as pad < kernel. */
    return kernel >= 1 && stride >= 1 && pad < kernel && ((uint32_t)out - 1u) * stride < (uint32_t)in + pad;
}

static bl_status check_window(const bl_checker *c, uint16_t index, const bl_image_layer *l)
{
    const bool pooled = l->pool != 0;
    const uint16_t height = pooled ? l->map_height : l->out.height;
    const uint16_t width = pooled ? l->map_width : l->out.width;

    if (l->kernel_height == 0 || l->kernel_width == 0) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_KERNEL);
    }
    if (l->stride_y == 0 || l->stride_x == 0) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_STRIDE);
    }
    if (l->pad_top >= l->kernel_height || l->pad_left >= l->kernel_width) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_PADDING);
    }
    if (height == 0 || width == 0 ||
        !window_fits(l->kernel_height, l->stride_y, l->pad_top, l->in.height, height) ||
        !window_fits(l->kernel_width, l->stride_x, l->pad_left, l->in.width, width)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, pooled ? L_MAP : L_OUT);
    }
    return BL_OK;
}

/* Pooling that is fused behind a convolution. */
static bl_status check_pooling(const bl_checker *c, uint16_t index, const bl_image_layer *l)
{
    if (l->pool == 0) {
        return bl_check_all_zero(bl_image_layer_at(c->image, index) + L_POOL, L_TILE - L_POOL)
                   ? BL_OK
                   : bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_POOL);
    }
    if (l->kind != BL_LAYER_CONV2D || (l->pool != BL_LAYER_MAX_POOL && l->pool != BL_LAYER_AVERAGE_POOL)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_POOL);
    }
    if (bl_image_layer_at(c->image, index)[L_RESERVED] != 0) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_RESERVED);
    }
    if (l->pool_height == 0 || l->pool_width == 0) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_POOL_KERNEL);
    }
    if (l->pool_stride_y == 0 || l->pool_stride_x == 0) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_POOL_STRIDE);
    }
    if (l->pool_pad_top >= l->pool_height || l->pool_pad_left >= l->pool_width) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_POOL_PADDING);
    }
    if (!window_fits(l->pool_height, l->pool_stride_y, l->pool_pad_top, l->map_height, l->out.height) ||
        !window_fits(l->pool_width, l->pool_stride_x, l->pool_pad_left, l->map_width, l->out.width)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    return BL_OK;
}

/* What each kind of layer asks of shapes and tensors; `inputs` and `outputs` are counts of elements. */
static bl_status check_kind(const bl_checker *c, uint16_t index, const bl_image_layer *l, uint32_t inputs, uint32_t outputs)
{
    bool windowed = l->kind == BL_LAYER_CONV2D || l->kind == BL_LAYER_MAX_POOL || l->kind == BL_LAYER_AVERAGE_POOL;
    bool weighted = l->kind == BL_LAYER_DENSE || l->kind == BL_LAYER_CONV2D;
    bl_status status = check_pooling(c, index, l);

    if (l->activation > (weighted ? BL_ACTIVATION_RELU : BL_ACTIVATION_NONE)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_ACTIVATION);
    }
    if (status != BL_OK) {
        return status;
    }
    if (windowed) {
        status = check_window(c, index, l);
        if (status != BL_OK) {
            return status;
        }
    } else if (!bl_check_all_zero(bl_image_layer_at(c->image, index) + L_KERNEL, L_IN - L_KERNEL)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_KERNEL);
    }
    if (weighted) {
        uint32_t rows = inputs;
        if (l->kind == BL_LAYER_CONV2D) {
            rows = (uint32_t)l->kernel_height * l->kernel_width * l->in.channels; /* below 2^32: 255 · 255 · 65535 */
        } else if (l->out.height != 1 || l->out.width != 1) {
            return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
        }
        if (!tensor_fits(c, l->weights, rows, l->out.channels)) {
            return bl_check_refuse(c, BL_BAD_TENSOR_INDEX, index, l->weights);
        }
        if (l->biases != BL_NO_INDEX &&
            (!tensor_fits(c, l->biases, 1, l->out.channels) || tensor_is_streamed(c, l->biases))) {
            return bl_check_refuse(c, BL_BAD_TENSOR_INDEX, index, l->biases);
        }
        return BL_OK;
    }
    if (l->weights != BL_NO_INDEX || l->biases != BL_NO_INDEX) {
        return bl_check_refuse(c, BL_BAD_TENSOR_INDEX, index, l->weights != BL_NO_INDEX ? l->weights : l->biases);
    }
    if (windowed ? l->in.channels != l->out.channels : inputs != outputs) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    return BL_OK;
}

static bool same_shape(const bl_shape *a, const bl_shape *b)
{
    return a->height == b->height && a->width == b->width && a->channels == b->channels;
}

/* A part of the arena that a layer reads or writes; of buffers with a batch stride, those of all images. */
typedef struct {
    uint32_t offset;
    uint32_t bytes;
} region;

static bool apart(const region *a, const region *b)
{
    return a->bytes == 0 || b->bytes == 0 || !bl_check_overlap(a->offset, a->bytes, b->offset, b->bytes);
}

/* The output of a checked layer. */
static region output_of(const bl_checker *c, const bl_image_layer *l)
{
    region r;

    r.offset = l->output;
    r.bytes = 4u * bl_shape_count(&l->out) + (c->header.slots - 1u) * l->batch_stride;
    return r;
}

static bool in_place(const bl_image_layer *l)
{
    return l->kind == BL_LAYER_RELU && l->input == l->output;
}

/* The batch stride, and that the outputs of all images lie in the arena. */
static bl_status check_output(const bl_checker *c, uint16_t index, const bl_image_layer *l, uint32_t bytes)
{
    const bl_image_header *h = &c->header;
    const uint32_t stride = l->batch_stride;

    if (!bl_check_region(c, l->output, bytes)) {
        return bl_check_refuse(c, BL_BAD_ARENA, index, L_OUTPUT);
    }
    if (stride == 0) {
        if (h->streamed != 0 && h->slots > 1 && bl_image_stage_end(c->image, h->layers, index) == index) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, L_BATCH_STRIDE);
        }
        return BL_OK;
    }
    if (h->streamed == 0 || stride % BL_ARENA_ALIGNMENT != 0 || stride < bytes ||
        h->slots - 1u > (h->arena_bytes - bytes) / stride ||
        !bl_check_region(c, l->output, bytes + (h->slots - 1u) * stride)) {
        return bl_check_refuse(c, BL_BAD_ARENA, index, L_BATCH_STRIDE);
    }
    return BL_OK;
}

/* A region that layer `index` writes lies in the arena and is apart from those before it. */
static bl_status add_region(const bl_checker *c, uint16_t index, uint32_t field, region *regions, unsigned *count,
                            uint32_t offset, uint32_t bytes)
{
    region *r = &regions[*count];

    r->offset = offset;
    r->bytes = bytes;
    if (!bl_check_region(c, offset, bytes)) {
        return bl_check_refuse(c, BL_BAD_ARENA, index, field);
    }
    for (unsigned i = 0; i < *count; i++) {
        if (!apart(r, &regions[i])) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, field);
        }
    }
    (*count)++;
    return BL_OK;
}

/* While a stage runs, nothing of it may lie over its input or its output, which are those of a whole batch. `regions` are
 * what layer `index` writes, its output first. */
static bl_status check_stage(const bl_checker *c, uint16_t index, const bl_image_layer *l, const region *regions,
                             unsigned count)
{
    const bl_image_header *h = &c->header;
    const uint16_t end = bl_image_stage_end(c->image, h->layers, index);
    uint16_t begin = index;
    uint16_t writer = end; /* of the buffer that is the stage's output, before ReLUs in place */
    bl_image_layer other;
    region input = {0, 0};
    region output;

    if (h->streamed == 0 || h->slots == 1) {
        return BL_OK;
    }
    while (begin > 0 && bl_image_stage_end(c->image, h->layers, (uint16_t)(begin - 1u)) == end) {
        begin--;
    }
    if (begin > 0) {
        bl_image_read_layer(c->image, (uint16_t)(begin - 1u), &other);
        input = output_of(c, &other);
    }
    bl_image_read_layer(c->image, end, &other);
    output = output_of(c, &other);
    while (writer > index && in_place(&other)) {
        writer--;
        bl_image_read_layer(c->image, writer, &other);
    }
    for (unsigned i = in_place(l) ? 1u : 0u; i < count; i++) {
        if (!apart(&regions[i], &input) || (!(i == 0 && index >= writer) && !apart(&regions[i], &output))) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, L_OUTPUT);
        }
    }
    return BL_OK;
}

/* Regions of layers with weights: table, tile and chunk. */
static bl_status check_weight_regions(bl_checker *c, uint16_t index, const bl_image_layer *l, region *regions,
                                      unsigned *count)
{
    bl_image_tensor weights;
    uint32_t columns;
    bl_status status = BL_OK;

    bl_image_read_tensor(c->image, c->header.layers, l->weights, &weights);
    columns = weights.chunk != 0 ? weights.chunk : weights.columns;
    if (l->table != BL_NO_OFFSET) {
        if (weights.format.width > 16) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, L_TABLE);
        }
        status = add_region(c, index, L_TABLE, regions, count, l->table, (uint32_t)4 << weights.format.width);
    }
    if (status == BL_OK && l->pool != 0) {
        uint32_t area = (uint32_t)l->pool_height * l->pool_width;
        if (area > 0x3FFFFFFFu / columns) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, L_TILE);
        }
        status = add_region(c, index, L_TILE, regions, count, l->tile, 4u * area * columns);
    }
    if (status == BL_OK && weights.chunk != 0) {
        uint32_t whole = weights.columns / weights.chunk;
        c->streamed += (uint64_t)whole * weights.data_bytes +
                       (uint64_t)weights.rows *
                           bl_format_row_bytes(&weights.format, weights.columns - whole * weights.chunk);
        status = add_region(c, index, L_WEIGHTS, regions, count, weights.data,
                            weights.data_bytes + BL_CHUNK_MARGIN_BYTES);
    }
    return status;
}

static bl_status check_regions(bl_checker *c, uint16_t index, const bl_image_layer *l, const bl_image_layer *before,
                               uint32_t outputs)
{
    const bool weighted = l->kind == BL_LAYER_DENSE || l->kind == BL_LAYER_CONV2D;
    region regions[5]; /* output, input, table, tile, chunk */
    unsigned count = 1;
    bl_status status = check_output(c, index, l, 4u * outputs);

    if (status != BL_OK) {
        return status;
    }
    regions[0] = output_of(c, l);
    if (index > 0) {
        region input = output_of(c, before);
        if (in_place(l)) {
            if (l->batch_stride != before->batch_stride) {
                return bl_check_refuse(c, BL_BAD_ARENA, index, L_BATCH_STRIDE);
            }
            input.bytes = 0;
        }
        if (!apart(&input, &regions[0])) {
            return bl_check_refuse(c, BL_BAD_ARENA, index, L_OUTPUT);
        }
        regions[count++] = input;
    }
    if (l->table != BL_NO_OFFSET && !weighted) {
        return bl_check_refuse(c, BL_BAD_ARENA, index, L_TABLE);
    }
    if (l->tile != BL_NO_OFFSET && l->pool == 0) {
        return bl_check_refuse(c, BL_BAD_ARENA, index, L_TILE);
    }
    if (weighted) {
        status = check_weight_regions(c, index, l, regions, &count);
        if (status != BL_OK) {
            return status;
        }
    }
    if (index > 0) {
        regions[1].bytes = 0; /* what is read was written, and checked, by the layer before */
    }
    return check_stage(c, index, l, regions, count);
}

bl_status bl_image_check_layer(bl_checker *c, uint16_t index)
{
    bl_image_layer l;
    bl_image_layer before;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t given = c->header.pixels;
    const bl_shape *shape = &c->header.input;
    bl_status status;

    bl_image_read_layer(c->image, index, &l);
    if (index > 0) {
        bl_image_read_layer(c->image, (uint16_t)(index - 1u), &before);
        shape = &before.out;
        given = bl_shape_count(shape);
    }
    if (l.kind < BL_LAYER_DENSE || l.kind > BL_LAYER_RELU) {
        return bl_check_refuse(c, BL_BAD_LAYER_KIND, index, l.kind);
    }
    if (!bl_check_shape(&l.in, &inputs)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_IN);
    }
    if (!bl_check_shape(&l.out, &outputs)) {
        return bl_check_refuse(c, BL_BAD_LAYER_SHAPE, index, L_OUT);
    }
    if ((l.input == BL_NO_OFFSET) != (index == 0) || (index > 0 && l.input != before.output) || inputs != given) {
        return bl_check_refuse(c, BL_BAD_LAYER_CHAIN, index, 0);
    }
    if (l.kind != BL_LAYER_DENSE && l.kind != BL_LAYER_RELU && !same_shape(&l.in, shape)) {
        return bl_check_refuse(c, BL_BAD_LAYER_CHAIN, index, 0);
    }
    status = check_kind(c, index, &l, inputs, outputs);
    if (status == BL_OK) {
        status = check_regions(c, index, &l, &before, outputs);
    }
    if (status == BL_OK && index + 1u == c->header.layers) {
        if (c->header.output != l.output) {
            return bl_check_refuse(c, BL_BAD_HEADER, H_OUTPUT, 0);
        }
        if (c->header.logits != outputs) {
            return bl_check_refuse(c, BL_BAD_HEADER, H_LOGITS, 0);
        }
    }
    return status;
}
