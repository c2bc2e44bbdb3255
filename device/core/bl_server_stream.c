#include "bl_server_internal.h"

/* The weights of the streamed layer under way; those of its present chunk. */
static void read_weights(const bl_server *server, bl_image_layer *layer, bl_image_tensor *weights)
{
    bl_image_read_layer(server->port->arena, server->stream.layer, layer);
    bl_image_read_tensor(server->port->arena, server->header.layers, layer->weights, weights);
}

/* Let the host send the chunk that begins at stream.column. */
static void want_chunk(bl_server *server)
{
    bl_server_stream *stream = &server->stream;
    bl_image_layer layer;
    bl_image_tensor weights;

    read_weights(server, &layer, &weights);
    stream->begin = stream->next;
    stream->limit = stream->next + bl_image_take_chunk(&weights, stream->column);
    bl_server_send_credit(server, NULL);
}

static BL_NOINLINE bool is_streamed(const bl_server *server)
{
    return bl_image_is_streamed(server->port->arena, server->header.layers, server->stream.layer);
}

/* Images of the batch under way. */
static uint32_t batch_images(const bl_server *server)
{
    return server->run.limit / server->header.pixels - server->run.computed;
}

static void finish_batch(bl_server *server)
{
    const uint32_t images = batch_images(server);

    for (uint32_t i = 0; i < images; i++) {
        bl_server_compute_end(server, server->run.computed);
    }
    server->stream.pass++;
    server->stream.next = 0;
    server->stream.limit = 0;
    server->stream.busy = false;
}

/* Begin the stage whose first layer is `layer`, if the run goes so far. */
static BL_NOINLINE void begin_stage(bl_server *server, uint32_t layer)
{
    bl_server_stream *stream = &server->stream;

    if (layer > server->run.last_layer) {
        finish_batch(server);
        return;
    }
    stream->layer = (uint16_t)layer;
    stream->image = 0;
    if (is_streamed(server)) {
        stream->column = 0;
        stream->crc = 0;
        want_chunk(server);
    }
}

/* All images have been through the chunk: the next one, or the next stage. */
static BL_NOINLINE void end_chunk(bl_server *server)
{
    bl_server_stream *stream = &server->stream;
    bl_image_layer layer;
    bl_image_tensor weights;

    read_weights(server, &layer, &weights);
    stream->image = 0;
    stream->column += weights.chunk;
    if (stream->column < weights.columns) {
        want_chunk(server);
    } else {
        begin_stage(server, stream->layer + 1u);
    }
}

/* Is the present chunk the last one of its tensor? */
static BL_NOINLINE bool is_last_chunk(const bl_server *server)
{
    bl_image_layer layer;
    bl_image_tensor weights;

    read_weights(server, &layer, &weights);
    return weights.columns - server->stream.column <= weights.chunk;
}

bool bl_server_stream_step(bl_server *server)
{
    bl_server_stream *stream = &server->stream;
    const uint32_t images = batch_images(server);

    if (!stream->busy) {
        for (uint32_t i = 0; i < images; i++) {
            bl_server_compute_begin(server, server->run.computed + i);
        }
        stream->busy = true;
        begin_stage(server, 0);
        return true;
    }
    if (stream->next < stream->limit) {
        return false;
    }
    if (is_streamed(server)) {
        bl_server_compute_chunk(server, server->run.computed + stream->image, stream->layer, stream->column,
                                is_last_chunk(server));
        if (++stream->image == images) {
            end_chunk(server);
        }
    } else {
        uint16_t end = bl_image_stage_end(server->port->arena, server->header.layers, stream->layer);
        end = end < server->run.last_layer ? end : server->run.last_layer;
        bl_server_compute_layers(server, server->run.computed + stream->image, stream->layer, end);
        if (++stream->image == images) {
            begin_stage(server, end + 1u);
        }
    }
    return true;
}

uint8_t *bl_server_chunk(const bl_server *server)
{
    bl_image_layer layer;
    bl_image_tensor weights;

    read_weights(server, &layer, &weights);
    return server->port->arena + weights.data;
}

bl_status bl_server_check_chunk(bl_server *server, uint32_t details[2])
{
    bl_server_stream *stream = &server->stream;
    const uint8_t *data;
    bl_image_layer layer;
    bl_image_tensor weights;
    uint32_t columns;
    uint32_t bytes;
    uint32_t element = 0;
    bl_status status;

    read_weights(server, &layer, &weights);
    data = server->port->arena + weights.data;
    columns = weights.columns;
    bytes = bl_image_take_chunk(&weights, stream->column);
    status = bl_image_check_codes(&weights, data, &element);
    details[0] = layer.weights;
    details[1] = element / weights.columns * columns + stream->column + element % weights.columns;
    if (status != BL_OK) {
        return status;
    }
    stream->crc = bl_frame_crc32(stream->crc, data, bytes);
    if (stream->column + weights.columns == columns && stream->crc != weights.crc) {
        details[1] = 0;
        return BL_BAD_CRC;
    }
    return BL_OK;
}
