#include "bl_server_internal.h"

#include "bl_sha256.h"

void bl_server_answer_upload(bl_server *server, const bl_request *request, uint8_t type, uint16_t used)
{
    uint8_t *body = bl_server_body(server) + used;

    bl_store_u32(body, server->upload.next);
    bl_store_u32(body + 4, server->upload.length);
    bl_server_answer(server, request, type, bl_server_write_ranges(server, (uint16_t)(used + 8u)));
}

bool bl_server_expect_memory(bl_server *server, const bl_request *request)
{
    const uint32_t there = server->port->arena_bytes;
    const uint32_t length = bl_load_u32(request->body);
    const uint32_t arena_bytes = bl_load_u32(request->body + 4);

    if (length > there || arena_bytes > there) {
        bl_server_error(server, request, BL_NO_MEMORY, length > arena_bytes ? length : arena_bytes, there);
        return false;
    }
    if (length < BL_IMAGE_HEADER_BYTES + BL_IMAGE_CRC_BYTES || length > BL_MAX_IMAGE_BYTES) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return false;
    }
    if (arena_bytes < length) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 4, 0);
        return false;
    }
    return true;
}

bool bl_server_is_upload_of(const bl_server *server, const bl_request *request)
{
    return server->state != BL_SERVER_REFUSED && server->upload.length == bl_load_u32(request->body) &&
           memcmp(server->upload.hash, request->body + 8, BL_HASH_BYTES) == 0;
}

void bl_server_restart_upload(bl_server *server, const bl_request *request)
{
    bl_server_upload *upload = &server->upload;

    memset(upload, 0, sizeof *upload);
    memcpy(upload->hash, request->body + 8, BL_HASH_BYTES);
    upload->length = bl_load_u32(request->body);
    memset(&server->run, 0, sizeof server->run);
    memset(&server->beyond, 0, sizeof server->beyond);
    server->state = BL_SERVER_UPLOADING;
}

void bl_server_upload_begin(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;

    if (!bl_server_expect(server, request, 8 + BL_HASH_BYTES) || !bl_server_expect_memory(server, request)) {
        return;
    }
    if (!bl_server_is_upload_of(server, request)) {
        memset(port->arena, BL_SERVER_PAINT, port->arena_bytes);
        server->painted = true;
        bl_server_restart_upload(server, request);
    } else if (server->state == BL_SERVER_RUNNING) {
        bl_server_stop_run(server);
    } else if (server->state == BL_SERVER_EMPTY) {
        server->state = BL_SERVER_UPLOADING;
    }
    bl_server_answer_upload(server, request, BL_MSG_UPLOAD_READY, 0);
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
            /* What is left of a delta's base lies where nothing was written for this image. */
            if (upload->base > upload->length) {
                memset(port->arena + upload->length, BL_SERVER_PAINT, upload->base - upload->length);
            }
            upload->base = 0;
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
