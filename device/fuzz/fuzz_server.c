/* libFuzzer target: a byte stream into the server. An input is u8 kind of board, then a list of steps: u8 kind, u16 length,
 * bytes.
 *     kind 0xFA   u16: so many milliseconds pass
 *     kind 0xFB   u8 table, bytes of which a complete code is made (fuzz_common.h): it is sent, as a host does
 *     kind 0xFC   the last image of a delta is completed: all of it is sent, and checked
 *     kind 0xFD   u8 count, count times u16 from, u16 to, u16 bytes; the rest is an image, given its length and CRC:
 *                 the delta to it begins, from the image that is held, and so many copies are asked for
 *     kind 0xFE   the bytes are an image: given its length and CRC, and uploaded as a host does
 *     kind 0xFF   the bytes go on the line as they are
 *     any other   a frame of this type and of the present session with these bytes as its body
 * The board's kind: bit 0: no tables of codes, bit 1: a fixed rate, bit 2: short frames are sent, bit 3: received. */
#include "fuzz_common.h"

#include "../core/bl_server.h"
#include "../core/bl_sha256.h"

enum { ARENA_BYTES = 1 << 13, BODY_BYTES = 200, SESSION = 0x5A5A, LINE_BYTES = 1 << 13, MOST_WORK = 2000 };
enum { BOOT_BAUD = 115200, MAX_BAUD = 2000000, STATE_NAMES = BL_SERVER_RUNNING + 1 };

typedef struct {
    bl_port port;
    bl_server server;
    bl_frame_decoder reader; /* of what the server sends */
    uint8_t line[LINE_BYTES];
    size_t begin;
    size_t end;
    uint64_t ticks;
    uint32_t milliseconds;
    uint32_t baud;
    uint8_t sequence;
    bool heavy;
    bl_server_upload upload; /* as it was, with what it held: */
    bl_ranges beyond;
    uint8_t held[ARENA_BYTES];
    uint8_t wanted[ARENA_BYTES]; /* the image of a delta */
    uint32_t wanted_bytes;
} device;

/* --- the port ----------------------------------------------------------------------------------------------------- */

static size_t port_read(void *context, uint8_t *data, size_t capacity)
{
    device *d = context;
    size_t count = d->end - d->begin;

    count = count < capacity ? count : capacity;
    memcpy(data, d->line + d->begin, count);
    d->begin += count;
    return count;
}

static void port_write(void *context, const uint8_t *data, size_t length)
{
    device *d = context;

    fuzz_require(length >= 1 && length <= 254, "pieces of 1 to 254 bytes are written");
    for (size_t i = 0; i < length; i++) {
        bl_frame_event event = bl_frame_decode(&d->reader, data[i]);
        fuzz_require(event == BL_FRAME_NONE || event == BL_FRAME_READY, "only good frames are sent");
        fuzz_require(event != BL_FRAME_READY || (d->reader.buffer[0] & 0x80u), "only answers and events are sent");
    }
}

static uint64_t port_ticks(void *context)
{
    return ++((device *)context)->ticks;
}

static uint32_t port_milliseconds(void *context)
{
    return ((device *)context)->milliseconds;
}

/* A divisor of 8 MHz. */
static uint32_t port_nearest_baud(void *context, uint32_t baud)
{
    uint32_t real;

    (void)context;
    fuzz_require(baud > 0 && baud <= MAX_BAUD, "no rate above the most is asked for");
    real = 8000000u / ((8000000u + baud / 2u) / baud);
    return real * 50u >= baud * 49u && real * 50u <= baud * 51u ? real : 0;
}

static void port_set_baud(void *context, uint32_t baud)
{
    device *d = context;

    fuzz_require(port_nearest_baud(context, baud) != 0, "only rates that can be made are set");
    d->baud = baud;
}

static uint32_t port_stack_peak(void *context)
{
    (void)context;
    return 123;
}

static void port_image_loaded(void *context, uint8_t *arena)
{
    ((device *)context)->heavy = fuzz_work(arena) > MOST_WORK;
}

/* --- what must always hold ---------------------------------------------------------------------------------------- */

static void check_ranges(const bl_ranges *ranges, uint32_t next, uint32_t limit)
{
    fuzz_require(ranges->count <= BL_RANGES, "no more ranges than there is room for");
    for (unsigned i = 0; i < ranges->count; i++) {
        fuzz_require(ranges->list[i].begin > next && ranges->list[i].end > ranges->list[i].begin,
                     "ranges ascend, are not empty and do not touch");
        next = ranges->list[i].end;
    }
    fuzz_require(next <= limit, "nothing is held beyond the end");
}

static bool is_kept(const device *d, uint32_t begin, uint32_t end)
{
    uint32_t stop = end;

    return bl_ranges_hold(&d->server.beyond, d->server.upload.next, begin, &stop) && stop == end &&
           memcmp(d->held + begin, d->port.arena + begin, end - begin) == 0;
}

/* What was told as held is held, and the same. A copy of a delta may write over what is not yet copied; that it writes over
 * what it has copied is the host's own doing. */
static void check_upload(device *d)
{
    const bl_server_upload *now = &d->server.upload;
    const bl_server_upload *then = &d->upload;

    check_ranges(&d->server.beyond, now->next, now->length);
    if (then->length > 0 && now->length == then->length && now->copies == then->copies && now->base == then->base &&
        memcmp(now->hash, then->hash, BL_HASH_BYTES) == 0) {
        fuzz_require(then->next == 0 || is_kept(d, 0, then->next), "what was received stays");
        for (unsigned i = 0; i < d->beyond.count; i++) {
            fuzz_require(is_kept(d, d->beyond.list[i].begin, d->beyond.list[i].end), "what was told as held is not dropped");
        }
    }
    d->upload = *now;
    d->beyond = d->server.beyond;
    memcpy(d->held, d->port.arena, now->length);
}

static void check(device *d)
{
    const bl_server *server = &d->server;

    fuzz_require(server->state < STATE_NAMES, "the state is one");
    d->upload.length = server->state == BL_SERVER_UPLOADING ? d->upload.length : 0;
    if (server->state == BL_SERVER_UPLOADING) {
        check_upload(d);
    } else if (server->state == BL_SERVER_RUNNING) {
        const bl_server_run *run = &server->run;
        bool pixels = run->next < run->limit;
        check_ranges(&server->beyond, pixels ? run->next : server->stream.next,
                     pixels ? run->limit : server->stream.limit);
        fuzz_require(run->acknowledged <= run->sent && run->sent <= run->computed && run->computed <= run->images,
                     "results go one way");
        fuzz_require(run->next <= run->limit && run->limit <= run->images * server->header.pixels, "credit is kept to");
    }
    if (d->port.nearest_baud != NULL) {
        fuzz_require(d->baud == server->baud.asked, "the line has the rate that the server thinks it has");
    }
}

/* --- the host ----------------------------------------------------------------------------------------------------- */

static void poll(device *d)
{
    unsigned turns = 0;

    while (!d->heavy && bl_server_poll(&d->server)) {
        fuzz_require(++turns < 10000, "the server comes to rest");
    }
    d->begin = 0;
    d->end = 0;
    check(d);
}

static void put(void *context, const uint8_t *data, size_t length)
{
    device *d = context;

    fuzz_require(length <= LINE_BYTES - d->end, "the line holds a step");
    memcpy(d->line + d->end, data, length);
    d->end += length;
}

static void send(device *d, uint8_t type, const uint8_t *body, size_t length)
{
    uint8_t frame[BL_FRAME_BYTES(LINE_BYTES / 2)];

    length = length < LINE_BYTES / 2 ? length : LINE_BYTES / 2;
    frame[0] = type;
    frame[1] = d->sequence++;
    bl_store_u16(frame + 2, SESSION);
    memcpy(frame + 4, body, length);
    bl_frame_encode(frame, 4 + length, put, d);
    poll(d);
}

/* Remember an image with its length and CRC; begin its upload, or the delta to it from `base`. */
static void begin(device *d, uint8_t type, const uint8_t *data, size_t length, const uint8_t *base)
{
    uint8_t body[8 + BL_HASH_BYTES + BL_BASE_HASH_BYTES];
    bl_sha256 hash;

    length = length < ARENA_BYTES ? length : ARENA_BYTES;
    memcpy(d->wanted, data, length);
    fuzz_seal(d->wanted, length);
    d->wanted_bytes = (uint32_t)length;
    bl_store_u32(body, d->wanted_bytes);
    bl_store_u32(body + 4, ARENA_BYTES);
    bl_sha256_init(&hash);
    bl_sha256_update(&hash, d->wanted, length);
    bl_sha256_final(&hash, body + 8);
    if (base != NULL) {
        memcpy(body + 8 + BL_HASH_BYTES, base, BL_BASE_HASH_BYTES);
    }
    send(d, type, body, 8 + BL_HASH_BYTES + (base != NULL ? (size_t)BL_BASE_HASH_BYTES : 0));
}

/* Send all of the image, and let it be checked. */
static void complete(device *d)
{
    const size_t most = d->port.body_bytes - 4u;
    uint8_t body[BODY_BYTES];

    for (size_t at = 0; at < d->wanted_bytes; at += most) {
        size_t piece = d->wanted_bytes - at < most ? d->wanted_bytes - at : most;
        bl_store_u32(body, (uint32_t)at);
        memcpy(body + 4, d->wanted + at, piece);
        send(d, BL_MSG_UPLOAD_DATA, body, 4 + piece);
    }
    send(d, BL_MSG_UPLOAD_END, body, 0);
}

static void send_delta(device *d, const uint8_t *data, size_t length)
{
    size_t copies = length > 0 ? data[0] : 0;
    uint8_t base[BL_HASH_BYTES];

    if (length < 1 + 6 * copies) {
        return;
    }
    memcpy(base, d->server.upload.hash, sizeof base);
    begin(d, BL_MSG_UPLOAD_DELTA, data + 1 + 6 * copies, length - 1 - 6 * copies, base);
    for (size_t i = 0; i < copies && !d->heavy; i++) {
        uint8_t body[14];
        bl_store_u16(body, (uint16_t)i);
        for (size_t field = 0; field < 3; field++) {
            bl_store_u32(body + 2 + 4 * field, bl_load_u16(data + 1 + 6 * i + 2 * field));
        }
        send(d, BL_MSG_UPLOAD_COPY, body, sizeof body);
    }
}

static void send_table(device *d, const uint8_t *data, size_t length)
{
    uint8_t lengths[BL_CODE_LENGTHS_BYTES];
    uint8_t body[4 + BL_MIN_BODY_BYTES];

    if (length == 0) {
        return;
    }
    fuzz_code_lengths(data + 1, length - 1, lengths);
    for (size_t at = 0; at < sizeof lengths; at += 32) { /* short enough for any board */
        body[0] = data[0];
        body[1] = 0;
        bl_store_u16(body + 2, (uint16_t)at);
        memcpy(body + 4, lengths + at, 32);
        send(d, BL_MSG_CODE_TABLE, body, 4 + 32);
    }
}

static void step(device *d, uint8_t kind, const uint8_t *data, size_t length)
{
    switch (kind) {
    case 0xFA:
        d->milliseconds += length >= 2 ? bl_load_u16(data) : 0u;
        poll(d);
        break;
    case 0xFB: send_table(d, data, length); break;
    case 0xFC: complete(d); break;
    case 0xFD: send_delta(d, data, length); break;
    case 0xFE:
        begin(d, BL_MSG_UPLOAD_BEGIN, data, length, NULL);
        complete(d);
        break;
    case 0xFF:
        put(d, data, length < LINE_BYTES ? length : LINE_BYTES);
        poll(d);
        break;
    default: send(d, kind, data, length); break;
    }
}

static void init(device *d, uint8_t kind)
{
    static const uint8_t version[4] = {BL_PROTOCOL_MAJOR, 0, BL_PROTOCOL_MINOR, 0};
    bl_port *p = &d->port;

    memset(d, 0, sizeof *d);
    p->context = d;
    p->read = port_read;
    p->write = port_write;
    p->ticks = port_ticks;
    p->stack_peak = port_stack_peak;
    p->image_loaded = port_image_loaded;
    if (!(kind & 2u)) {
        p->nearest_baud = port_nearest_baud;
        p->set_baud = port_set_baud;
        p->milliseconds = port_milliseconds;
        p->boot_baud = BOOT_BAUD;
        p->max_baud = MAX_BAUD;
        d->baud = BOOT_BAUD;
        d->milliseconds = 0u - 5000u; /* soon it turns over */
    }
    /* Each buffer by itself and of exactly its size: the sanitizers watch its ends. */
    p->arena = malloc(ARENA_BYTES);
    p->arena_bytes = ARENA_BYTES;
    p->body_bytes = kind & 8u ? BL_MIN_BODY_BYTES : BODY_BYTES;
    p->send_body_bytes = kind & 4u ? BL_MIN_BODY_BYTES : BODY_BYTES;
    p->receive_buffer = malloc(BL_FRAME_BYTES(p->body_bytes));
    p->send_buffer = malloc(BL_FRAME_BYTES(p->send_body_bytes));
    p->code_tables = kind & 1u ? NULL : malloc(BL_CODE_TABLES_BYTES);
    p->firmware_version = "0";
    p->board = "fuzz";
    p->isa = "host";
    bl_frame_decoder_init(&d->reader, malloc(BL_FRAME_BYTES(p->send_body_bytes)), BL_FRAME_BYTES(p->send_body_bytes));
    bl_server_init(&d->server, p);
    send(d, BL_MSG_HELLO_REQUEST, version, sizeof version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static device d;

    if (size == 0) {
        return 0;
    }
    init(&d, data[0]);
    data++;
    size--;
    while (size >= 3 && !d.heavy) {
        uint8_t kind = data[0];
        size_t length = bl_load_u16(data + 1);
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        step(&d, kind, data, length);
        data += length;
        size -= length;
    }
    free(d.port.arena);
    free(d.port.receive_buffer);
    free(d.port.send_buffer);
    free(d.port.code_tables);
    free(d.reader.buffer);
    return 0;
}
