#include "bl_server_internal.h"

/* A stream of bytes that frames bring in pieces, in any order: an image, a run's pixels, or a batch's weights. */
typedef enum { STREAM_IMAGE, STREAM_PIXELS, STREAM_WEIGHTS } stream_kind;

typedef struct {
    stream_kind kind;
    uint32_t *next;   /* everything before is here */
    uint32_t limit;   /* bytes from here on are ignored */
    uint32_t total;   /* bytes from here on are an error */
    uint16_t answer;  /* bytes of the answer that come before its ranges */
} stream;

/* A frame's bytes, and where in the stream they belong. */
typedef struct {
    bl_coding coding;
    uint8_t kind; /* BL_CODING_..., 0: plain */
    uint32_t offset;
    uint16_t count; /* decoded */
} piece;

uint16_t bl_server_write_ranges(const bl_server *server, uint16_t length)
{
    uint8_t *at = bl_server_body(server) + length;
    uint32_t count = bl_server_most_ranges(server, length);

    count = count < server->beyond.count ? count : server->beyond.count;
    for (uint32_t i = 0; i < count; i++) {
        bl_store_u32(at, server->beyond.list[i].begin);
        bl_store_u32(at + 4, server->beyond.list[i].end);
        at += sizeof(bl_range);
    }
    return (uint16_t)(at - bl_server_body(server));
}

/* --- what a request says ----------------------------------------------------------------------------------------- */

/* Which stream a request is for, and how that stands. Answers with ERROR and returns false if it makes no sense now. */
static bool open_stream(bl_server *server, const bl_request *request, stream *s)
{
    switch (request->type) {
    case BL_MSG_UPLOAD_DATA:
    case BL_MSG_UPLOAD_CODED:
        if (server->state == BL_SERVER_EMPTY || server->state == BL_SERVER_REFUSED) {
            bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
            return false;
        }
        s->kind = STREAM_IMAGE;
        s->next = &server->upload.next;
        s->limit = server->upload.length;
        s->total = server->upload.length;
        s->answer = 8;
        return true;
    case BL_MSG_RUN_DATA:
    case BL_MSG_RUN_CODED:
        s->kind = STREAM_PIXELS;
        s->next = &server->run.next;
        s->limit = server->run.limit;
        s->total = server->run.images * server->header.pixels;
        break;
    default:
        s->kind = STREAM_WEIGHTS;
        s->next = &server->stream.next;
        s->limit = bl_load_u32(request->body) == server->stream.pass ? server->stream.limit : 0;
        s->total = server->header.streamed;
        break;
    }
    s->answer = bl_server_credit_bytes(server);
    return bl_server_expect_running(server, request);
}

/* The fields of coded data: u16 count, u8 coding, at `at` in the body. */
static bool open_coded(bl_server *server, const bl_request *request, const stream *s, uint16_t at, piece *p)
{
    const uint8_t *tables = server->port->code_tables;
    const uint8_t table = s->kind == STREAM_PIXELS ? BL_CODE_TABLE_OF_PIXELS : BL_CODE_TABLE_OF_WEIGHTS;

    p->count = bl_load_u16(request->body + at);
    p->kind = request->body[at + 2u];
    if (p->count == 0) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, at, 0);
        return false;
    }
    if (p->kind == 0 || p->kind > (BL_CODING_RUNS | BL_CODING_CODES)) {
        bl_server_error(server, request, BL_BAD_CODING, p->kind, 0);
        return false;
    }
    if ((p->kind & BL_CODING_CODES) && (tables == NULL || server->code_next[table] < BL_CODE_LENGTHS_BYTES)) {
        bl_server_error(server, request, BL_BAD_CODE_TABLE, table, 0);
        return false;
    }
    bl_coding_begin(&p->coding, p->kind, tables != NULL ? tables + table * BL_CODE_TABLE_BYTES : NULL,
                    request->body + at + 3, (uint16_t)(request->length - at - 3u), p->count);
    return true;
}

static bool open_piece(bl_server *server, const bl_request *request, const stream *s, uint16_t at, bool coded, piece *p)
{
    p->offset = bl_load_u32(request->body + at - 4u);
    p->kind = 0;
    p->count = coded ? bl_load_u16(request->body + at) : (uint16_t)(request->length - at);
    if (p->offset > s->total || p->count > s->total - p->offset) {
        bl_server_error(server, request, BL_BAD_OFFSET, p->offset, s->total);
        return false;
    }
    if (coded) {
        return open_coded(server, request, s, at, p);
    }
    bl_coding_begin(&p->coding, 0, NULL, request->body + at, p->count, p->count);
    return true;
}

/* --- taking it ----------------------------------------------------------------------------------------------------- */

/* Where the byte at `position` goes: NULL where it is here already, or is not wanted. Lowers `stop` to where a run of
 * bytes with such an answer ends. */
static uint8_t *place_of(const bl_server *server, const stream *s, uint32_t position, uint32_t *stop)
{
    const uint32_t pixels = server->header.pixels;
    uint32_t within;

    if (position >= s->limit) {
        return NULL;
    }
    *stop = *stop < s->limit ? *stop : s->limit;
    if (bl_ranges_hold(&server->beyond, *s->next, position, stop)) {
        return NULL;
    }
    switch (s->kind) {
    case STREAM_IMAGE: return server->port->arena + position;
    case STREAM_WEIGHTS: return bl_server_chunk(server) + (position - server->stream.begin);
    default: break;
    }
    within = position % pixels;
    *stop = *stop - position < pixels - within ? *stop : position + (pixels - within);
    return bl_server_slot_at(server, position / pixels) + within;
}

/* Decode a piece straight into the places of its bytes. What is held already is passed over, so a piece that turns out to
 * be damaged cannot spoil it, and one pass is enough. Bytes written for nothing are those of a place that waits for them. */
static bool take(const bl_server *server, const stream *s, piece *p)
{
    const uint32_t end = p->offset + p->count;
    uint32_t position = p->offset;

    while (position < end) {
        uint32_t stop = end;
        uint8_t *to = place_of(server, s, position, &stop);
        if (!bl_coding_read(&p->coding, to, (uint16_t)(stop - position))) {
            return false;
        }
        position = stop;
    }
    return bl_coding_is_done(&p->coding);
}

/* Count the piece's bytes as received. Of weights the last ones of a chunk are checked; answers with ERROR, ends the run
 * and returns false if they are wrong. */
static bool note(bl_server *server, const bl_request *request, const stream *s, const piece *p)
{
    const uint32_t end = p->offset + p->count;
    const uint32_t before = *s->next;

    (void)bl_ranges_add(&server->beyond, s->next, p->offset, end < s->limit ? end : s->limit,
                        bl_server_most_ranges(server, s->answer));
    if (s->kind == STREAM_WEIGHTS && before < s->limit && *s->next == s->limit) {
        uint32_t details[2];
        bl_status status = bl_server_check_chunk(server, details);
        if (status != BL_OK) {
            bl_server_stop_run(server);
            bl_server_error(server, request, status, details[0], details[1]);
            return false;
        }
    }
    return true;
}

void bl_server_data(bl_server *server, const bl_request *request)
{
    const bool coded = request->type == BL_MSG_UPLOAD_CODED || request->type == BL_MSG_RUN_CODED ||
                       request->type == BL_MSG_STREAM_CODED;
    const bool weights = request->type == BL_MSG_STREAM_DATA || request->type == BL_MSG_STREAM_CODED;
    const uint16_t at = weights ? 8 : 4; /* where the bytes, or the fields of coded ones, begin */
    const uint16_t least = coded ? at + 3u : at;
    stream s;
    piece p;

    if (request->length < least) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, least);
        return;
    }
    if (!open_stream(server, request, &s) || !open_piece(server, request, &s, at, coded, &p)) {
        return;
    }
    if (server->state == BL_SERVER_UPLOADING) {
        server->upload.written = true;
    }
    if (!take(server, &s, &p)) {
        bl_server_error(server, request, BL_BAD_CODING, p.kind, (uint32_t)p.count - p.coding.left);
        return;
    }
    if (!note(server, request, &s, &p)) {
        return;
    }
    if (s.kind == STREAM_IMAGE) {
        bl_server_answer_upload(server, request, BL_MSG_UPLOAD_ACK, 0);
    } else {
        bl_server_send_credit(server, request);
    }
}

/* --- tables of codes ----------------------------------------------------------------------------------------------- */

void bl_server_code_table(bl_server *server, const bl_request *request)
{
    const uint8_t *lengths = request->body + 4;
    const uint8_t number = request->body[0];
    uint8_t *body = bl_server_body(server);
    uint8_t *table;
    uint8_t *next;
    uint16_t offset;
    uint16_t count;
    bool known;

    if (server->port->code_tables == NULL) {
        bl_server_error(server, request, BL_BAD_TYPE, request->type, 0);
        return;
    }
    if (request->length < 4) {
        bl_server_error(server, request, BL_BAD_BODY, request->length, 4);
        return;
    }
    if (number > BL_CODE_TABLE_OF_PIXELS || request->body[1] != 0) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, number > BL_CODE_TABLE_OF_PIXELS ? 0 : 1, 0);
        return;
    }
    offset = bl_load_u16(request->body + 2);
    count = (uint16_t)(request->length - 4u);
    if (offset > BL_CODE_LENGTHS_BYTES || count > BL_CODE_LENGTHS_BYTES - offset) {
        bl_server_error(server, request, BL_BAD_OFFSET, offset, BL_CODE_LENGTHS_BYTES);
        return;
    }
    table = server->port->code_tables + number * BL_CODE_TABLE_BYTES;
    next = &server->code_next[number];
    /* A first piece that is sent again must not begin the table anew: coded frames behind it may be on their way. */
    if (*next == BL_CODE_LENGTHS_BYTES) {
        known = bl_coding_table_has(table, offset, lengths, count);
    } else {
        known = offset + count <= *next && memcmp(bl_coding_lengths(table) + offset, lengths, count) == 0;
    }
    if (!known && (offset == 0 || offset == *next)) {
        memcpy(bl_coding_lengths(table) + offset, lengths, count);
        *next = (uint8_t)(offset + count);
        if (*next == BL_CODE_LENGTHS_BYTES && !bl_coding_make_table(table)) {
            *next = 0;
            bl_server_error(server, request, BL_BAD_CODE_TABLE, number, 0);
            return;
        }
    }
    body[0] = number;
    body[1] = 0;
    bl_store_u16(body + 2, *next);
    bl_server_answer(server, request, BL_MSG_CODE_READY, 4);
}
