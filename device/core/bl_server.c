#include "bl_server.h"

#include "bl_probe.h"
#include "bl_server_internal.h"

/* After so many frames bl_server_poll looks whether there is an image to compute, however many bytes wait. */
#define BL_SERVER_FRAMES_A_POLL 16u

/* --- sending ---------------------------------------------------------------------------------------------------- */

static void send_frame(bl_server *server, uint8_t type, uint8_t sequence, uint16_t session, uint16_t length)
{
    uint8_t *frame = server->port->send_buffer;

    frame[0] = type;
    frame[1] = sequence;
    bl_store_u16(frame + 2, session);
    server->stats.frames_sent++;
    bl_frame_encode(frame, (size_t)BL_FRAME_HEADER_BYTES + length, server->port->write, server->port->context);
}

void bl_server_answer(bl_server *server, const bl_request *request, uint8_t type, uint16_t length)
{
    send_frame(server, type, request->sequence, request->session, length);
}

void bl_server_event(bl_server *server, uint8_t type, uint16_t length)
{
    send_frame(server, type, 0, server->session, length);
}

void bl_server_error(bl_server *server, const bl_request *request, bl_status status, uint32_t first, uint32_t second)
{
    uint8_t *body = bl_server_body(server);

    bl_store_u16(body, (uint16_t)status);
    body[2] = request->type;
    body[3] = 0;
    bl_store_u32(body + 4, first);
    bl_store_u32(body + 8, second);
    bl_server_answer(server, request, BL_MSG_ERROR, 12);
}

bool bl_server_expect(bl_server *server, const bl_request *request, uint16_t length)
{
    if (request->length != length) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, length);
        return false;
    }
    return true;
}

void bl_server_log(bl_server *server, uint8_t level, const char *text, size_t length)
{
    uint8_t *body = bl_server_body(server);
    size_t most = server->port->send_body_bytes - 1u;

    length = length < most ? length : most;
    body[0] = level;
    memcpy(body + 1, text, length);
    bl_server_event(server, BL_MSG_LOG, (uint16_t)(length + 1u));
}

/* --- requests --------------------------------------------------------------------------------------------------- */

static void drop_work(bl_server *server)
{
    if (server->state == BL_SERVER_RUNNING) {
        bl_server_stop_run(server);
    } else if (server->state == BL_SERVER_REFUSED) {
        server->state = BL_SERVER_EMPTY;
        server->upload.length = 0;
    } else if (server->state == BL_SERVER_UPLOADING) {
        server->state = BL_SERVER_EMPTY; /* what has arrived stays: an upload of the same image goes on from there */
    }
    memset(server->code_next, 0, sizeof server->code_next);
}

static void begin_session(bl_server *server, const bl_request *request)
{
    if (request->length < 4) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, 4);
        return;
    }
    if (bl_load_u16(request->body) != BL_PROTOCOL_MAJOR) {
        bl_server_error(server, request, BL_BAD_PROTOCOL, BL_PROTOCOL_MAJOR, BL_PROTOCOL_MINOR);
        return;
    }
    drop_work(server);
    server->session = request->session;
    if (server->port->stack_paint != NULL) {
        server->port->stack_paint(server->port->context);
    }
    bl_server_hello(server, request);
}

static void echo(bl_server *server, const bl_request *request)
{
    if (request->length > server->port->send_body_bytes) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, server->port->send_body_bytes);
        return;
    }
    memcpy(bl_server_body(server), request->body, request->length);
    bl_server_answer(server, request, BL_MSG_ECHO, request->length);
}

static void dispatch(bl_server *server, const bl_request *request)
{
    switch (request->type) {
    case BL_MSG_HELLO_REQUEST: begin_session(server, request); break;
    case BL_MSG_ECHO_REQUEST: echo(server, request); break;
    case BL_MSG_UPLOAD_BEGIN: bl_server_upload_begin(server, request); break;
    case BL_MSG_UPLOAD_END: bl_server_upload_end(server, request); break;
    case BL_MSG_RUN_BEGIN: bl_server_run_begin(server, request); break;
    case BL_MSG_RUN_ACK: bl_server_run_ack(server, request); break;
    case BL_MSG_RUN_END: bl_server_run_end(server, request); break;
    case BL_MSG_READ_ACTIVATION: bl_server_read_activation(server, request); break;
    case BL_MSG_UPLOAD_DATA:
    case BL_MSG_UPLOAD_CODED:
    case BL_MSG_RUN_DATA:
    case BL_MSG_RUN_CODED:
    case BL_MSG_STREAM_DATA:
    case BL_MSG_STREAM_CODED: bl_server_data(server, request); break;
    case BL_MSG_CODE_TABLE: bl_server_code_table(server, request); break;
    case BL_MSG_TENSORS_REQUEST: bl_server_tensors(server, request); break;
    case BL_MSG_UPLOAD_DELTA: bl_server_upload_delta(server, request); break;
    case BL_MSG_UPLOAD_COPY: bl_server_upload_copy(server, request); break;
    case BL_MSG_BAUD_REQUEST: bl_server_baud_request(server, request); break;
    case BL_MSG_BAUD_COMMIT: bl_server_baud_commit(server, request); break;
    case BL_MSG_STATS_REQUEST: bl_server_send_stats(server, request); break;
    default: bl_server_error(server, request, BL_BAD_TYPE, request->type, 0); break;
    }
}

static void take_frame(bl_server *server)
{
    const uint8_t *frame = server->decoder.buffer;
    bl_request request;

    server->stats.frames_received++;
    request.type = frame[0];
    request.sequence = frame[1];
    request.session = bl_load_u16(frame + 2);
    request.body = frame + BL_FRAME_HEADER_BYTES;
    request.length = (uint16_t)(server->decoder.length - BL_FRAME_OVERHEAD_BYTES);
    if (request.session == 0 || (request.session != server->session && request.type != BL_MSG_HELLO_REQUEST)) {
        server->stats.stale_frames++;
    } else if (request.type & 0x80u) {
        server->stats.framing_errors++; /* an answer, come back to us: answering it could go on for ever */
    } else {
        dispatch(server, &request);
    }
}

/* --- the port's side -------------------------------------------------------------------------------------------- */

void bl_server_begin_decoder(bl_server *server)
{
    const bl_port *port = server->port;

    bl_frame_decoder_init(&server->decoder, port->receive_buffer, BL_FRAME_BYTES(port->body_bytes));
}

void bl_server_init(bl_server *server, const bl_port *port)
{
    memset(server, 0, sizeof *server);
    server->port = port;
    bl_server_begin_decoder(server);
    server->baud.asked = port->boot_baud;
    bl_probe_run(server->probe_results);
}

bool bl_server_poll(bl_server *server)
{
    uint8_t bytes[64];
    unsigned frames = 0;
    bool busy = false;

    while (frames < BL_SERVER_FRAMES_A_POLL) {
        size_t count = server->port->read(server->port->context, bytes, sizeof bytes);
        if (count == 0) {
            break;
        }
        busy = true;
        for (size_t i = 0; i < count; i++) {
            switch (bl_frame_decode(&server->decoder, bytes[i])) {
            case BL_FRAME_READY:
                take_frame(server);
                frames++;
                break;
            case BL_FRAME_DAMAGED: server->stats.framing_errors++; break;
            case BL_FRAME_BAD_CRC: server->stats.crc_errors++; break;
            default: break;
            }
        }
    }
    bl_server_baud_poll(server, busy, frames > 0);
    if (bl_server_run_step(server)) {
        bl_server_baud_skip(server);
        busy = true;
    }
    return busy;
}

uint64_t bl_server_extend_ticks(uint64_t *last, uint32_t now, unsigned bits)
{
    uint32_t mask = bits < 32 ? ((uint32_t)1 << bits) - 1u : 0xFFFFFFFFu;

    *last += (now - (uint32_t)*last) & mask;
    return *last;
}
