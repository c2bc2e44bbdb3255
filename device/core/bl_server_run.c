#include "bl_server_internal.h"

enum { RESULT_HEADER_BYTES = 6, ACTIVATION_HEADER_BYTES = 8 };

/* --- slots and credit ------------------------------------------------------------------------------------------- */

/* Let the host send as far as slots are free. In throughput mode those whose images were computed are. In timing mode all
 * are at once, when every result of the batch has been acknowledged, so that the line stays quiet until then. */
static void grant(bl_server *server)
{
    bl_server_run *run = &server->run;
    uint32_t until = run->images - run->computed;

    if (run->mode == BL_MODE_TIMING && run->acknowledged * server->header.pixels != run->limit) {
        return;
    }
    until = run->computed + (until < run->slots ? until : run->slots);
    run->limit = until * server->header.pixels;
}

void bl_server_send_credit(bl_server *server, const bl_request *request)
{
    uint8_t *body = bl_server_body(server);
    const uint16_t length = bl_server_write_ranges(server, bl_server_credit_bytes(server));

    server->run.told = server->run.limit;
    bl_store_u32(body, server->run.next);
    bl_store_u32(body + 4, server->run.limit);
    bl_store_u32(body + 8, server->run.computed);
    if (server->header.streamed != 0) {
        bl_store_u32(body + 12, server->stream.pass);
        bl_store_u32(body + 16, server->stream.next);
        bl_store_u32(body + 20, server->stream.limit);
    }
    if (request != NULL) {
        bl_server_answer(server, request, BL_MSG_RUN_CREDIT, length);
    } else {
        bl_server_event(server, BL_MSG_RUN_CREDIT, length);
    }
}

/* Tell of credit that the host does not wait for, but not with each image: half of the slots make one frame. */
static void tell_credit(bl_server *server)
{
    const bl_server_run *run = &server->run;

    if ((run->limit - run->told) / server->header.pixels >= (run->slots + 1u) / 2u) {
        bl_server_send_credit(server, NULL);
    }
}

bool bl_server_expect_running(bl_server *server, const bl_request *request)
{
    if (server->state != BL_SERVER_RUNNING) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return false;
    }
    return true;
}

/* --- requests --------------------------------------------------------------------------------------------------- */

void bl_server_run_begin(bl_server *server, const bl_request *request)
{
    const bl_image_header *header = &server->header;
    bl_server_run *run = &server->run;
    uint8_t *body = bl_server_body(server);
    uint16_t stop;
    uint32_t images;
    uint32_t record;

    if (!bl_server_expect(server, request, 8)) {
        return;
    }
    if (!bl_server_has_image(server)) {
        bl_server_error(server, request, BL_NO_MODEL, 0, 0);
        return;
    }
    stop = bl_load_u16(request->body + 2);
    images = bl_load_u32(request->body + 4);
    if (request->body[0] > (header->streamed != 0 ? BL_MODE_TIMING : BL_MODE_THROUGHPUT)) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    if (request->body[1] > (BL_OUTPUT_LOGITS | BL_OUTPUT_LAYER_TICKS)) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 1, 0);
        return;
    }
    if (stop != BL_NO_LAYER && stop >= header->layers) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 2, 0);
        return;
    }
    if (images > 0xFFFFFFFFu / header->pixels) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 4, 0);
        return;
    }
    bl_server_stop_run(server);
    memset(run, 0, sizeof *run);
    memset(&server->stream, 0, sizeof server->stream);
    run->mode = request->body[0];
    run->outputs = request->body[1];
    run->stops = stop != BL_NO_LAYER;
    run->last_layer = run->stops ? stop : (uint16_t)(header->layers - 1u);
    run->slots = run->stops ? 1 : header->slots;
    run->images = images;
    record = BL_RECORD_HEADER_BYTES + (bl_server_sends_logits(run) ? 4u * header->logits : 0) + 4u * bl_server_timed_layers(run);
    if (record > server->port->send_body_bytes - (uint32_t)RESULT_HEADER_BYTES) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 1, record);
        return;
    }
    run->record_bytes = (uint16_t)record;
    grant(server);
    run->told = run->limit;
    server->state = BL_SERVER_RUNNING;
    bl_store_u16(body, run->slots);
    bl_store_u16(body + 2, run->record_bytes);
    bl_store_u32(body + 4, run->limit);
    bl_server_answer(server, request, BL_MSG_RUN_READY, 8);
}

void bl_server_stop_run(bl_server *server)
{
    server->state = BL_SERVER_LOADED;
    memset(&server->beyond, 0, sizeof server->beyond);
}

void bl_server_run_ack(bl_server *server, const bl_request *request)
{
    bl_server_run *run = &server->run;
    uint32_t index;

    if (!bl_server_expect(server, request, 5) || !bl_server_expect_running(server, request)) {
        return;
    }
    index = bl_load_u32(request->body);
    if (index > run->computed) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    if (request->body[4] > 1) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 4, 0);
        return;
    }
    if (index > run->acknowledged) {
        run->acknowledged = index;
    }
    if (run->sent < run->acknowledged || request->body[4] == 1) {
        run->sent = run->acknowledged;
    }
    grant(server);
    bl_server_send_credit(server, request);
}

void bl_server_run_end(bl_server *server, const bl_request *request)
{
    if (!bl_server_expect(server, request, 0)) {
        return;
    }
    if (!bl_server_has_image(server)) {
        bl_server_error(server, request, BL_NO_MODEL, 0, 0);
        return;
    }
    bl_server_stop_run(server);
    bl_store_u32(bl_server_body(server), server->run.computed);
    bl_server_answer(server, request, BL_MSG_RUN_DONE, 4);
}

void bl_server_read_activation(bl_server *server, const bl_request *request)
{
    const bl_server_run *run = &server->run;
    uint8_t *body = bl_server_body(server);
    bl_image_layer layer;
    const float *output;
    uint32_t total;
    uint32_t offset;
    uint32_t count;
    uint32_t room = server->port->send_body_bytes - (uint32_t)ACTIVATION_HEADER_BYTES;

    if (!bl_server_expect(server, request, 6) || !bl_server_expect_running(server, request)) {
        return;
    }
    if (!run->stops || run->computed == run->acknowledged) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return;
    }
    bl_image_read_layer(server->port->arena, run->last_layer, &layer);
    output = (const float *)(const void *)(server->port->arena + layer.output);
    total = 4u * bl_shape_count(&layer.out);
    offset = bl_load_u32(request->body);
    count = bl_load_u16(request->body + 4);
    if (offset > total) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    count = count < room ? count : room;
    count = count < total - offset ? count : total - offset;
    bl_store_u32(body, offset);
    bl_store_u32(body + 4, total);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits = bl_float_emitted(output[(offset + i) / 4u]);
        body[ACTIVATION_HEADER_BYTES + i] = (uint8_t)(bits >> (8u * ((offset + i) & 3u)));
    }
    bl_server_answer(server, request, BL_MSG_ACTIVATION, (uint16_t)(ACTIVATION_HEADER_BYTES + count));
}

/* --- results ----------------------------------------------------------------------------------------------------- */

/* Send as many finished results as one frame holds, from run->sent on. */
static void send_results(bl_server *server, uint32_t count)
{
    const uint32_t logit_bytes = 4u * server->header.logits;
    bl_server_run *run = &server->run;
    uint8_t *body = bl_server_body(server);
    uint8_t *at = body + RESULT_HEADER_BYTES;

    bl_store_u32(body, run->sent);
    body[4] = (uint8_t)count;
    body[5] = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *record = bl_server_record_at(server, run->sent + i);
        memcpy(at, record, BL_RECORD_HEADER_BYTES);
        at += BL_RECORD_HEADER_BYTES;
        if (bl_server_sends_logits(run)) {
            memcpy(at, record + BL_RECORD_HEADER_BYTES, logit_bytes);
            at += logit_bytes;
        }
        memcpy(at, record + BL_RECORD_HEADER_BYTES + logit_bytes, 4u * bl_server_timed_layers(run));
        at += 4u * bl_server_timed_layers(run);
    }
    run->sent += count;
    bl_server_event(server, BL_MSG_RESULT, (uint16_t)(at - body));
}

bool bl_server_run_step(bl_server *server)
{
    bl_server_run *run = &server->run;
    uint32_t pending;
    uint32_t most;
    bool ready;

    if (server->state != BL_SERVER_RUNNING) {
        return false;
    }
    if (run->mode == BL_MODE_TIMING) {
        /* The batch is computed when it is complete, and sent when it is computed. */
        ready = run->next == run->limit && run->computed * server->header.pixels < run->limit;
        pending = run->computed * server->header.pixels == run->limit ? run->computed - run->sent : 0;
    } else {
        ready = run->computed < run->next / server->header.pixels && run->computed - run->acknowledged < run->slots;
        pending = run->computed - run->sent;
    }
    most = (server->port->send_body_bytes - (uint32_t)RESULT_HEADER_BYTES) / run->record_bytes;
    most = most < 255 ? most : 255;
    /* While there are images to compute, results wait until a frame or half of the slots is full. */
    if (ready && pending < most && 2u * pending < run->slots) {
        if (server->header.streamed != 0) {
            return bl_server_stream_step(server);
        }
        bl_server_compute(server);
        if (run->mode == BL_MODE_THROUGHPUT) {
            grant(server);
            tell_credit(server);
        }
        return true;
    }
    if (pending > 0) {
        send_results(server, pending < most ? pending : most);
        return true;
    }
    return false;
}
