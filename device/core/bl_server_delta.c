#include "bl_server_internal.h"

#include "bl_sha256.h"

/* A part of an image with a hash of its own. */
typedef struct {
    uint32_t offset;
    uint32_t bytes;
} part;

enum { PARTS_A_TENSOR = 3, TENSORS_HEADER_BYTES = 4, PART_RECORD_BYTES = 8 + BL_TENSOR_HASH_BYTES, COPY_BYTES = 14 };

static void hash_arena(const bl_server *server, uint32_t offset, uint32_t bytes, uint8_t digest[BL_HASH_BYTES])
{
    bl_sha256 hash;

    bl_sha256_init(&hash);
    bl_sha256_update(&hash, server->port->arena + offset, bytes);
    bl_sha256_final(&hash, digest);
}

/* Part `number` of the image: data, scales and zero points of each tensor. What is not in the image is empty. */
static void read_part(const bl_server *server, uint16_t number, part *p)
{
    bl_image_tensor tensor;

    bl_image_read_tensor(server->port->arena, server->header.layers, number / PARTS_A_TENSOR, &tensor);
    switch (number % PARTS_A_TENSOR) {
    case 0:
        p->offset = tensor.data;
        p->bytes = tensor.chunk == 0 ? tensor.data_bytes : 0;
        break;
    case 1:
        p->offset = tensor.scales;
        p->bytes = tensor.scales != BL_NO_OFFSET ? 4u * tensor.groups : 0;
        break;
    default:
        p->offset = tensor.zero_points;
        p->bytes = tensor.zero_points != BL_NO_OFFSET ? 4u * tensor.groups : 0;
        break;
    }
    if (p->bytes == 0) {
        p->offset = 0;
    }
}

static void write_part(const bl_server *server, uint16_t number, uint8_t *at)
{
    uint8_t digest[BL_HASH_BYTES];
    part p;

    read_part(server, number, &p);
    hash_arena(server, p.offset, p.bytes, digest);
    bl_store_u32(at, p.offset);
    bl_store_u32(at + 4, p.bytes);
    memcpy(at + 8, digest, BL_TENSOR_HASH_BYTES);
}

void bl_server_tensors(bl_server *server, const bl_request *request)
{
    uint8_t *body = bl_server_body(server);
    const uint16_t total = (uint16_t)(PARTS_A_TENSOR * server->header.tensors);
    uint16_t used = TENSORS_HEADER_BYTES;
    uint16_t first;

    if (!bl_server_expect(server, request, 2)) {
        return;
    }
    if (!bl_server_has_image(server)) {
        bl_server_error(server, request, BL_NO_MODEL, 0, 0);
        return;
    }
    first = bl_load_u16(request->body);
    if (first > total) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    bl_store_u16(body, first);
    bl_store_u16(body + 2, total);
    while (first < total && (uint32_t)used + PART_RECORD_BYTES <= server->port->send_body_bytes) {
        write_part(server, first++, body + used);
        used = (uint16_t)(used + PART_RECORD_BYTES);
    }
    bl_server_answer(server, request, BL_MSG_TENSORS, used);
}

/* Is the image that a delta names as its base the one that is here, untouched? Once a delta has begun its hash is no
 * longer kept, so that it is computed anew: only a request that is sent again comes to that. */
static bool holds_base(const bl_server *server, const bl_request *request)
{
    const bl_server_upload *upload = &server->upload;
    const uint8_t *base = request->body + 8 + BL_HASH_BYTES;
    uint8_t digest[BL_HASH_BYTES];

    if (bl_server_has_image(server)) {
        return memcmp(upload->hash, base, BL_BASE_HASH_BYTES) == 0;
    }
    if (!bl_server_is_upload_of(server, request) || upload->base == 0 || upload->copies > 0 || upload->written) {
        return false;
    }
    hash_arena(server, 0, upload->base, digest);
    return memcmp(digest, base, BL_BASE_HASH_BYTES) == 0;
}

void bl_server_upload_delta(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;

    if (!bl_server_expect(server, request, 8 + BL_HASH_BYTES + BL_BASE_HASH_BYTES) ||
        !bl_server_expect_memory(server, request)) {
        return;
    }
    if (!holds_base(server, request)) {
        bl_server_error(server, request, BL_NO_MODEL, 0, 0);
        return;
    }
    if (bl_server_has_image(server)) {
        const uint32_t base = server->upload.length;
        /* As with a whole upload: what is found changed afterwards was written by the new image. */
        memset(port->arena + base, BL_SERVER_PAINT, port->arena_bytes - base);
        bl_server_restart_upload(server, request);
        server->upload.base = base;
    }
    server->state = BL_SERVER_UPLOADING;
    bl_server_answer_upload(server, request, BL_MSG_UPLOAD_READY, 0);
}

/* Do the next copy. Returns false, having answered with ERROR, if it cannot be done. */
static bool copy(bl_server *server, const bl_request *request)
{
    bl_server_upload *upload = &server->upload;
    const uint32_t from = bl_load_u32(request->body + 2);
    const uint32_t to = bl_load_u32(request->body + 6);
    const uint32_t bytes = bl_load_u32(request->body + 10);
    const uint32_t most = bl_server_most_ranges(server, 10);

    if (upload->written) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return false;
    }
    if (from > upload->base || bytes > upload->base - from) {
        bl_server_error(server, request, BL_BAD_OFFSET, from, upload->base);
        return false;
    }
    if (to > upload->length || bytes > upload->length - to) {
        bl_server_error(server, request, BL_BAD_OFFSET, to, upload->length);
        return false;
    }
    if (!bl_ranges_add(&server->beyond, &upload->next, to, to + bytes, most)) {
        bl_server_error(server, request, BL_TOO_MANY, server->beyond.count + 1u, server->beyond.count);
        return false;
    }
    memmove(server->port->arena + to, server->port->arena + from, bytes);
    upload->copies++;
    return true;
}

void bl_server_upload_copy(bl_server *server, const bl_request *request)
{
    if (!bl_server_expect(server, request, COPY_BYTES)) {
        return;
    }
    if (server->state != BL_SERVER_UPLOADING || server->upload.base == 0) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return;
    }
    if (bl_load_u16(request->body) == server->upload.copies && !copy(server, request)) {
        return;
    }
    bl_store_u16(bl_server_body(server), server->upload.copies);
    bl_server_answer_upload(server, request, BL_MSG_UPLOAD_COPIED, 2);
}
