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

/* Where the body of the next frame is written: body_bytes of the send buffer. */
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
void bl_server_upload_data(bl_server *server, const bl_request *request);
void bl_server_upload_end(bl_server *server, const bl_request *request);

void bl_server_run_begin(bl_server *server, const bl_request *request);
void bl_server_run_data(bl_server *server, const bl_request *request);
void bl_server_run_ack(bl_server *server, const bl_request *request);
void bl_server_run_end(bl_server *server, const bl_request *request);
void bl_server_read_activation(bl_server *server, const bl_request *request);

/* Compute an image or send results, if there is one to compute or some to send. Returns whether it did. */
bool bl_server_run_step(bl_server *server);

#ifdef __cplusplus
}
#endif

#endif /* BL_SERVER_INTERNAL_H */
