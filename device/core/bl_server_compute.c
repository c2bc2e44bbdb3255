#include "bl_server_internal.h"

/* Add ticks to a u32 of a record; it stays at its most instead of beginning anew. */
static void add_ticks(uint8_t *at, uint64_t ticks)
{
    uint64_t sum = bl_load_u32(at) + ticks;

    bl_store_u32(at, sum < 0xFFFFFFFFu ? (uint32_t)sum : 0xFFFFFFFFu);
}

static void note_layer(bl_server *server, uint16_t layer)
{
    if (server->layer_record != NULL) {
        uint64_t now = server->port->ticks(server->port->context);
        add_ticks(server->layer_record + 4u * layer, now - server->layer_ticks);
        server->layer_ticks = now;
    }
}

static void layer_done(bl_server *server, uint16_t layer, float *output, uint32_t count)
{
    note_layer(server, layer);
    if (server->port->layer_done != NULL) {
        server->port->layer_done(server->port->context, layer, output, count);
    }
}

static void after_layer(const bl_engine *engine, uint16_t layer, float *output, uint32_t count)
{
    layer_done((bl_server *)engine->context, layer, output, count);
}

/* Make ready to measure: the line falls quiet. Returns the ticks now. */
static uint64_t begin_measuring(bl_server *server, uint32_t image, bl_engine *engine)
{
    const bl_port *port = server->port;

    server->layer_record = NULL;
    if (bl_server_timed_layers(&server->run) > 0) {
        server->layer_record = bl_server_record_at(server, image) + BL_RECORD_HEADER_BYTES + 4u * server->header.logits;
    }
    engine->arena = port->arena;
    engine->pixel_table = port->pixel_table;
    engine->after_layer = server->layer_record != NULL || port->layer_done != NULL ? after_layer : NULL;
    engine->context = server;
    if (server->run.mode == BL_MODE_TIMING && port->flush != NULL) {
        port->flush(port->context);
    }
    server->layer_ticks = port->ticks(port->context);
    return server->layer_ticks;
}

static void end_measuring(bl_server *server, uint32_t image, uint64_t begin)
{
    uint8_t *at = bl_server_record_at(server, image) + 4;
    uint64_t ticks = server->port->ticks(server->port->context) - begin;

    ticks += bl_load_u32(at) | (uint64_t)bl_load_u32(at + 4) << 32;
    bl_store_u32(at, (uint32_t)ticks);
    bl_store_u32(at + 4, (uint32_t)(ticks >> 32));
}

static uint16_t batch_image(const bl_server *server, uint32_t image)
{
    return server->header.streamed != 0 ? (uint16_t)(image % server->run.slots) : 0;
}

void bl_server_compute_begin(bl_server *server, uint32_t image)
{
    memset(bl_server_record_at(server, image), 0, bl_image_result_bytes(&server->header));
}

void bl_server_compute_layers(bl_server *server, uint32_t image, uint16_t first_layer, uint16_t last_layer)
{
    bl_engine engine;
    uint64_t begin = begin_measuring(server, image, &engine);

    (void)bl_engine_run(&engine, &server->header, bl_server_slot_at(server, image), batch_image(server, image),
                        first_layer, last_layer);
    end_measuring(server, image, begin);
}

void bl_server_compute_chunk(bl_server *server, uint32_t image, uint16_t layer, uint32_t first_column, bool last)
{
    bl_engine engine;
    uint64_t begin = begin_measuring(server, image, &engine);
    float *output = bl_engine_run_chunk(&engine, &server->header, bl_server_slot_at(server, image),
                                        batch_image(server, image), layer, first_column);

    if (last && engine.after_layer != NULL) {
        bl_image_layer record;
        bl_image_read_layer(server->port->arena, layer, &record);
        layer_done(server, layer, output, bl_shape_count(&record.out));
    } else {
        note_layer(server, layer);
    }
    end_measuring(server, image, begin);
}

void bl_server_compute_end(bl_server *server, uint32_t image)
{
    const bl_image_header *header = &server->header;
    uint8_t *record = bl_server_record_at(server, image);

    if (!server->run.stops) {
        bl_image_layer last;
        const float *output;
        bl_image_read_layer(server->port->arena, (uint16_t)(header->layers - 1u), &last);
        output = (const float *)(const void *)(server->port->arena + header->output +
                                               batch_image(server, image) * last.batch_stride);
        bl_store_u16(record, (uint16_t)bl_engine_argmax(output, header->logits));
        for (uint32_t i = 0; i < header->logits; i++) {
            bl_store_u32(record + BL_RECORD_HEADER_BYTES + 4u * i, bl_float_emitted(output[i]));
        }
    }
    server->run.computed++;
    server->stats.images_run++;
}

void bl_server_compute(bl_server *server)
{
    const uint32_t image = server->run.computed;

    bl_server_compute_begin(server, image);
    bl_server_compute_layers(server, image, 0, server->run.last_layer);
    bl_server_compute_end(server, image);
}
