/* What the files of the server share; nobody else includes this. */
#ifndef BL_SERVER_INTERNAL_H
#define BL_SERVER_INTERNAL_H

#include "bl_server.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A frame that asks for something. `body` lies in the receive buffer. */
typedef struct {
    uint8_t type;
    uint8_t sequence;
    uint16_t session;
    const uint8_t *body;
    uint16_t length;
} bl_request;

/* Where the body of the next frame is written: send_body_bytes of the send buffer. */
static inline uint8_t *bl_server_body(const bl_server *server)
{
    return server->port->send_buffer + BL_FRAME_HEADER_BYTES;
}

/* Send what was written to bl_server_body as an answer to `request`, or as an event. */
void bl_server_answer(bl_server *server, const bl_request *request, uint8_t type, uint16_t length);
void bl_server_event(bl_server *server, uint8_t type, uint16_t length);
void bl_server_error(bl_server *server, const bl_request *request, bl_status status, uint32_t first, uint32_t second);

/* Answer with ERROR BAD_BODY and return false unless the body has `length` bytes. */
bool bl_server_expect(bl_server *server, const bl_request *request, uint16_t length);

void bl_server_hello(bl_server *server, const bl_request *request);
void bl_server_send_stats(bl_server *server, const bl_request *request);

void bl_server_upload_begin(bl_server *server, const bl_request *request);
void bl_server_upload_end(bl_server *server, const bl_request *request);

void bl_server_tensors(bl_server *server, const bl_request *request);
void bl_server_upload_delta(bl_server *server, const bl_request *request);
void bl_server_upload_copy(bl_server *server, const bl_request *request);

void bl_server_run_begin(bl_server *server, const bl_request *request);
void bl_server_run_ack(bl_server *server, const bl_request *request);
void bl_server_run_end(bl_server *server, const bl_request *request);
void bl_server_read_activation(bl_server *server, const bl_request *request);

/* Plain and coded data of every kind, and the tables to decode them with. */
void bl_server_data(bl_server *server, const bl_request *request);
void bl_server_code_table(bl_server *server, const bl_request *request);

void bl_server_baud_request(bl_server *server, const bl_request *request);
void bl_server_baud_commit(bl_server *server, const bl_request *request);

/* The rate that the line has, where it can be changed. */
uint32_t bl_server_baud_now(const bl_server *server);

/* The rate's clocks. Call bl_server_baud_poll after reading, with what was read; bl_server_baud_skip after computing. */
void bl_server_baud_poll(bl_server *server, bool bytes_came, bool frame_came);
void bl_server_baud_skip(bl_server *server);

/* Make ready for a stream of bytes with a beginning of its own. */
void bl_server_begin_decoder(bl_server *server);

/* The checks of an upload's length, and of the arena it asks for, which UPLOAD_BEGIN and UPLOAD_DELTA share: answer with
 * ERROR and return false if they are out of range. */
bool bl_server_expect_memory(bl_server *server, const bl_request *request);

/* Is the image that `request` names the one that is here, or on its way? Begin an upload of it with nothing received. */
bool bl_server_is_upload_of(const bl_server *server, const bl_request *request);
void bl_server_restart_upload(bl_server *server, const bl_request *request);

/* Answer with next, limit and ranges of the upload behind `used` bytes of the body. */
void bl_server_answer_upload(bl_server *server, const bl_request *request, uint8_t type, uint16_t used);

/* Append the ranges to a body of `length` bytes; returns its new length. How many have room there: */
uint16_t bl_server_write_ranges(const bl_server *server, uint16_t length);
static inline uint32_t bl_server_most_ranges(const bl_server *server, uint16_t length)
{
    return (server->port->send_body_bytes - (uint32_t)length) / sizeof(bl_range);
}

/* Answer with ERROR BAD_STATE and return false unless a run is under way. */
bool bl_server_expect_running(bl_server *server, const bl_request *request);

/* End a run that is under way; the image stays. */
void bl_server_stop_run(bl_server *server);

static inline bool bl_server_has_image(const bl_server *server)
{
    return server->state == BL_SERVER_LOADED || server->state == BL_SERVER_RUNNING;
}

/* Send a RUN_CREDIT, as an answer or, where `request` is NULL, as an event. Its bytes without the ranges: */
void bl_server_send_credit(bl_server *server, const bl_request *request);
static inline uint16_t bl_server_credit_bytes(const bl_server *server)
{
    return server->header.streamed == 0 ? 12 : 24;
}

/* --- slots and records (docs/model.md) --- */

enum { BL_RECORD_HEADER_BYTES = 12 };

static inline uint8_t *bl_server_slot_at(const bl_server *server, uint32_t image)
{
    return server->port->arena + server->header.queue + image % server->run.slots * server->header.slot_bytes;
}

static inline uint8_t *bl_server_record_at(const bl_server *server, uint32_t image)
{
    return bl_server_slot_at(server, image) + bl_align4(server->header.pixels);
}

/* Layers whose ticks a record on the line holds. */
static inline uint16_t bl_server_timed_layers(const bl_server_run *run)
{
    return run->outputs & BL_OUTPUT_LAYER_TICKS ? (uint16_t)(run->last_layer + 1u) : 0;
}

static inline bool bl_server_sends_logits(const bl_server_run *run)
{
    return (run->outputs & BL_OUTPUT_LOGITS) && !run->stops;
}

/* --- computing --- */

/* Compute the next image, and leave its full result record in its slot. */
void bl_server_compute(bl_server *server);

/* The same in parts: an empty record, resident layers, a chunk of a layer with streamed weights (`last`: the layer's
 * last one), and label and logits. Ticks add up in the record. `image` counts within the run. */
void bl_server_compute_begin(bl_server *server, uint32_t image);
void bl_server_compute_layers(bl_server *server, uint32_t image, uint16_t first_layer, uint16_t last_layer);
void bl_server_compute_chunk(bl_server *server, uint32_t image, uint16_t layer, uint32_t first_column, bool last);
void bl_server_compute_end(bl_server *server, uint32_t image);

/* The streamed weights' place in the arena: where the present chunk begins. */
uint8_t *bl_server_chunk(const bl_server *server);

/* The chunk is here: is it what the image says? */
bl_status bl_server_check_chunk(bl_server *server, uint32_t details[2]);

/* Go on with a batch whose pixels are there, where weights are streamed. Returns false while weights are awaited. */
bool bl_server_stream_step(bl_server *server);

/* Compute an image or send results, if there is one to compute or some to send. Returns whether it did. */
bool bl_server_run_step(bl_server *server);

#ifdef __cplusplus
}
#endif

#endif /* BL_SERVER_INTERNAL_H */
