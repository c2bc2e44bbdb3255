#include "bl_server_internal.h"

#include "bl_sha256.h"

static void answer_ready(bl_server *server, const bl_request *request, uint8_t type)
{
    uint8_t *body = bl_server_body(server);

    bl_store_u32(body, server->upload.next);
    bl_store_u32(body + 4, server->upload.length);
    bl_server_answer(server, request, type, 8);
}

void bl_server_upload_begin(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;
    bl_server_upload *upload = &server->upload;
    const uint8_t *hash = request->body + 8;
    uint32_t length;
    uint32_t arena_bytes;

    if (!bl_server_expect(server, request, 8 + BL_HASH_BYTES)) {
        return;
    }
    length = bl_load_u32(request->body);
    arena_bytes = bl_load_u32(request->body + 4);
    if (length > port->arena_bytes || arena_bytes > port->arena_bytes) {
        bl_server_error(server, request, BL_NO_MEMORY, length > arena_bytes ? length : arena_bytes, port->arena_bytes);
        return;
    }
    if (length < BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES || length > BL_MAX_IMAGE_BYTES) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    if (arena_bytes < length) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 4, 0);
        return;
    }
    if (server->state != BL_SERVER_REFUSED && upload->length == length &&
        memcmp(upload->hash, hash, BL_HASH_BYTES) == 0) {
        if (server->state == BL_SERVER_LOADED || server->state == BL_SERVER_RUNNING) {
            server->state = BL_SERVER_LOADED;
        } else {
            server->state = BL_SERVER_UPLOADING;
        }
    } else {
        memset(port->arena, BL_SERVER_PAINT, port->arena_bytes);
        server->painted = true;
        memcpy(upload->hash, hash, BL_HASH_BYTES);
        upload->length = length;
        upload->next = 0;
        memset(&server->run, 0, sizeof server->run);
        server->state = BL_SERVER_UPLOADING;
    }
    answer_ready(server, request, BL_MSG_UPLOAD_READY);
}

void bl_server_upload_data(bl_server *server, const bl_request *request)
{
    bl_server_upload *upload = &server->upload;
    uint32_t offset;
    uint32_t count;

    if (request->length < 4) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, 4);
        return;
    }
    if (server->state == BL_SERVER_EMPTY || server->state == BL_SERVER_REFUSED) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return;
    }
    offset = bl_load_u32(request->body);
    count = request->length - 4u;
    if (offset > upload->length || count > upload->length - offset) {
        bl_server_error(server, request, BL_BAD_OFFSET, offset, upload->length);
        return;
    }
    /* Bytes that are here already are passed over; a gap waits for what is missing. Once loaded, next is the length. */
    if (offset <= upload->next && offset + count > upload->next) {
        uint32_t known = upload->next - offset;
        memcpy(server->port->arena + upload->next, request->body + 4 + known, count - known);
        upload->next += count - known;
    }
    answer_ready(server, request, BL_MSG_UPLOAD_ACK);
}

/* The SHA-256 of what lies in the arena, then every field of it. */
static bl_status check(bl_server *server)
{
    const bl_port *port = server->port;
    bl_server_upload *upload = &server->upload;
    bl_sha256 hash;
    uint8_t digest[BL_HASH_BYTES];

    upload->details[0] = 0;
    upload->details[1] = 0;
    bl_sha256_init(&hash);
    bl_sha256_update(&hash, port->arena, upload->length);
    bl_sha256_final(&hash, digest);
    if (memcmp(digest, upload->hash, BL_HASH_BYTES) != 0) {
        return BL_BAD_HASH;
    }
    return bl_image_validate(port->arena, upload->length, port->arena_bytes, upload->details);
}

void bl_server_upload_end(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;
    bl_server_upload *upload = &server->upload;
    uint8_t *body = bl_server_body(server);

    if (!bl_server_expect(server, request, 0)) {
        return;
    }
    if (server->state == BL_SERVER_EMPTY) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return;
    }
    if (server->state == BL_SERVER_UPLOADING) {
        if (upload->next < upload->length) {
            bl_server_error(server, request, BL_BAD_LENGTH, upload->next, upload->length);
            return;
        }
        upload->status = check(server);
        if (upload->status == BL_OK) {
            bl_image_read_header(port->arena, &server->header);
            server->state = BL_SERVER_LOADED;
            if (port->image_loaded != NULL) {
                port->image_loaded(port->context, port->arena);
            }
        } else {
            server->state = BL_SERVER_REFUSED;
        }
    }
    if (server->state == BL_SERVER_REFUSED) {
        bl_server_error(server, request, upload->status, upload->details[0], upload->details[1]);
        return;
    }
    memcpy(body, upload->hash, BL_HASH_BYTES);
    bl_store_u32(body + BL_HASH_BYTES, server->header.arena_bytes);
    bl_server_answer(server, request, BL_MSG_UPLOAD_DONE, BL_HASH_BYTES + 4);
}
