#include "bl_server_internal.h"

/* HELLO: fields over as many frames as they take. The same fields are written twice, first to count the frames. */
typedef struct {
    bl_server *server;
    const bl_request *request;
    uint16_t used;  /* bytes of the present body */
    uint8_t part;
    uint8_t parts;  /* 0 while counting */
} fields;

enum { PART_HEADER_BYTES = 2, FIELD_HEADER_BYTES = 2, TEXT_BYTES = 60 };

static void end_part(fields *f)
{
    if (f->parts > 0) {
        uint8_t *body = bl_server_body(f->server);
        body[0] = f->part;
        body[1] = f->parts;
        bl_server_answer(f->server, f->request, BL_MSG_HELLO, f->used);
    }
    f->part++;
    f->used = PART_HEADER_BYTES;
}

/* Where the value of a field of `length` bytes is to be written. A part holds BL_MIN_BODY_BYTES at least. */
static uint8_t *field(fields *f, uint8_t tag, uint8_t length)
{
    uint8_t *at;

    if ((uint32_t)f->used + FIELD_HEADER_BYTES + length > f->server->port->send_body_bytes) {
        end_part(f);
    }
    at = bl_server_body(f->server) + f->used;
    at[0] = tag;
    at[1] = length;
    f->used = (uint16_t)(f->used + FIELD_HEADER_BYTES + length);
    return at + FIELD_HEADER_BYTES;
}

static void field_u8(fields *f, uint8_t tag, uint8_t value)
{
    *field(f, tag, 1) = value;
}

static void field_u32(fields *f, uint8_t tag, uint32_t value)
{
    bl_store_u32(field(f, tag, 4), value);
}

static void field_text(fields *f, uint8_t tag, const char *text)
{
    const uint8_t *bytes = (const uint8_t *)text;
    uint8_t length = 0;
    uint8_t *at;

    while (length < TEXT_BYTES && bl_const_u8(bytes + length) != 0) {
        length++;
    }
    at = field(f, tag, length);
    for (uint8_t i = 0; i < length; i++) {
        at[i] = bl_const_u8(bytes + i);
    }
}

static void field_const(fields *f, uint8_t tag, const uint8_t *bytes, uint8_t length)
{
    uint8_t *at = field(f, tag, length);

    for (uint8_t i = 0; i < length; i++) {
        at[i] = bl_const_u8(bytes + i);
    }
}

static uint32_t capabilities(const bl_port *port)
{
    uint32_t bits = BL_CAP_LAYER_TICKS | BL_CAP_ACTIVATIONS | BL_CAP_THROUGHPUT | BL_CAP_STREAMED_WEIGHTS |
                    BL_CAP_DELTA_UPLOAD;

    return port->stack_peak != NULL ? bits | BL_CAP_STACK_PEAK : bits;
}

static void write_probe(fields *f)
{
    uint8_t length = 4 * BL_PROBE_COUNT;
    uint8_t *at;
    uint32_t crc = 0;
    uint8_t word[4];

    for (unsigned i = 0; i < BL_PROBE_COUNT; i++) {
        bl_store_u32(word, f->server->probe_results[i]);
        crc = bl_frame_crc32(crc, word, sizeof word);
    }
    field_u32(f, BL_HELLO_PROBE_CRC, crc);
    at = field(f, BL_HELLO_PROBE_RESULTS, length);
    for (unsigned i = 0; i < BL_PROBE_COUNT; i++) {
        bl_store_u32(at + 4u * i, f->server->probe_results[i]);
    }
}

static void write_fields(fields *f)
{
    const bl_server *server = f->server;
    const bl_port *port = server->port;
    uint8_t *at;

    f->used = PART_HEADER_BYTES;
    f->part = 0;
    at = field(f, BL_HELLO_PROTOCOL, 4);
    bl_store_u16(at, BL_PROTOCOL_MAJOR);
    bl_store_u16(at + 2, BL_PROTOCOL_MINOR);
    field_text(f, BL_HELLO_FIRMWARE_VERSION, port->firmware_version);
    if (port->firmware_hash != NULL) {
        field_const(f, BL_HELLO_FIRMWARE_HASH, port->firmware_hash, BL_HASH_BYTES);
    }
    field_text(f, BL_HELLO_BOARD, port->board);
    field_text(f, BL_HELLO_ISA, port->isa);
    field_u32(f, BL_HELLO_CLOCK_HZ, port->clock_hz);
    at = field(f, BL_HELLO_TIMER, 5);
    at[0] = port->timer_unit;
    bl_store_u32(at + 1, port->ticks_per_second);
    write_probe(f);
    field_u32(f, BL_HELLO_ARENA_BYTES, port->arena_bytes);
    bl_store_u16(field(f, BL_HELLO_BODY_BYTES, 2), port->body_bytes);
    field_u32(f, BL_HELLO_WINDOW_BYTES, port->window_bytes);
    field_u32(f, BL_HELLO_CAPABILITIES, capabilities(port));
    field_u32(f, BL_HELLO_LAYER_KINDS,
              (uint32_t)1 << BL_LAYER_DENSE | (uint32_t)1 << BL_LAYER_CONV2D | (uint32_t)1 << BL_LAYER_MAX_POOL |
                  (uint32_t)1 << BL_LAYER_AVERAGE_POOL | (uint32_t)1 << BL_LAYER_RELU);
    field_u32(f, BL_HELLO_FORMAT_KINDS,
              (uint32_t)1 << BL_FORMAT_FLOAT | (uint32_t)1 << BL_FORMAT_INTEGER | (uint32_t)1 << BL_FORMAT_TERNARY |
                  (uint32_t)1 << BL_FORMAT_BINARY);
    field_u8(f, BL_HELLO_LAYOUTS, BL_LAYOUT_IN_MAJOR);
    at = field(f, BL_HELLO_PACKINGS, 2);
    at[0] = port->ternary_packing;
    at[1] = port->ternary_packing == BL_PACKING_TRITS ? BL_PACKING_BITS : BL_PACKING_TRITS;
    field_u8(f, BL_HELLO_TABLE_BITS, port->table_bits);
    field_u8(f, BL_HELLO_RESET_CAUSE, port->reset_cause);
    field_u32(f, BL_HELLO_BOOT_COUNT, port->boot_count);
    if (bl_server_has_image(server)) {
        memcpy(field(f, BL_HELLO_IMAGE_HASH, BL_HASH_BYTES), server->upload.hash, BL_HASH_BYTES);
    }
    field_u32(f, BL_HELLO_STATIC_BYTES, port->static_bytes);
    at = field(f, BL_HELLO_LIMITS, 4);
    bl_store_u16(at, BL_MAX_LAYERS);
    bl_store_u16(at + 2, BL_MAX_TENSORS);
    field_u8(f, BL_HELLO_SIMULATED, port->simulated ? 1 : 0);
    bl_store_u16(field(f, BL_HELLO_SEND_BODY_BYTES, 2), port->send_body_bytes);
    field_u8(f, BL_HELLO_CODINGS, port->code_tables != NULL ? BL_CODING_RUNS | BL_CODING_CODES : BL_CODING_RUNS);
    field_u8(f, BL_HELLO_RANGES, BL_RANGES);
    if (port->nearest_baud != NULL) {
        at = field(f, BL_HELLO_BAUD, 8);
        bl_store_u32(at, bl_server_baud_now(server));
        bl_store_u32(at + 4, port->max_baud);
    }
    end_part(f);
}

void bl_server_hello(bl_server *server, const bl_request *request)
{
    fields f;

    f.server = server;
    f.request = request;
    f.parts = 0;
    write_fields(&f);
    f.parts = f.part;
    write_fields(&f);
}

/* Highest arena byte that no longer has the paint, plus one. */
static uint32_t arena_peak(const bl_server *server)
{
    uint32_t peak = server->painted ? server->port->arena_bytes : 0;

    while (peak > 0 && server->port->arena[peak - 1u] == BL_SERVER_PAINT) {
        peak--;
    }
    return peak;
}

static void stats_field(const bl_server *server, uint16_t *used, uint8_t tag, uint32_t value)
{
    uint8_t *at = bl_server_body(server) + *used;

    if ((uint32_t)*used + 6u <= server->port->send_body_bytes) {
        at[0] = tag;
        at[1] = 4;
        bl_store_u32(at + 2, value);
        *used = (uint16_t)(*used + 6u);
    }
}

void bl_server_send_stats(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;
    const bl_server_stats *stats = &server->stats;
    uint16_t used = 0;

    if (!bl_server_expect(server, request, 0)) {
        return;
    }
    stats_field(server, &used, BL_STATS_FRAMES_RECEIVED, stats->frames_received);
    stats_field(server, &used, BL_STATS_FRAMES_SENT, stats->frames_sent);
    stats_field(server, &used, BL_STATS_CRC_ERRORS, stats->crc_errors);
    stats_field(server, &used, BL_STATS_FRAMING_ERRORS, stats->framing_errors);
    stats_field(server, &used, BL_STATS_OVERRUNS, port->overruns != NULL ? port->overruns(port->context) : 0);
    stats_field(server, &used, BL_STATS_STALE_FRAMES, stats->stale_frames);
    stats_field(server, &used, BL_STATS_IMAGES_RUN, stats->images_run);
    stats_field(server, &used, BL_STATS_ARENA_PEAK_BYTES, arena_peak(server));
    if (port->stack_peak != NULL) {
        stats_field(server, &used, BL_STATS_STACK_PEAK_BYTES, port->stack_peak(port->context));
    }
    if (port->heap_free_least != NULL) {
        stats_field(server, &used, BL_STATS_HEAP_FREE_LEAST_BYTES, port->heap_free_least(port->context));
    }
    stats_field(server, &used, BL_STATS_BOOT_COUNT, port->boot_count);
    stats_field(server, &used, BL_STATS_STATIC_BYTES, port->static_bytes);
    bl_server_answer(server, request, BL_MSG_STATS, used);
}
