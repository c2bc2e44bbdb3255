/* libFuzzer target: a byte stream into the server. An input is a list of steps: u8 kind, u16 length, bytes.
 *     kind 0xFE   the bytes are an image: given its length and CRC, and uploaded as a host does
 *     kind 0xFF   the bytes go on the line as they are
 *     any other   a frame of this type and of the present session with these bytes as its body */
#include "fuzz_common.h"

#include "../core/bl_server.h"
#include "../core/bl_sha256.h"

enum { ARENA_BYTES = 1 << 13, BODY_BYTES = 200, SESSION = 0x5A5A, LINE_BYTES = 1 << 13, MOST_WORK = 2000 };

typedef struct {
    bl_port port;
    bl_server server;
    bl_frame_decoder reader; /* of what the server sends */
    uint8_t line[LINE_BYTES];
    size_t begin;
    size_t end;
    uint64_t ticks;
    uint8_t sequence;
    bool heavy;
} device;

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

static uint32_t port_stack_peak(void *context)
{
    (void)context;
    return 123;
}

static void port_image_loaded(void *context, uint8_t *arena)
{
    ((device *)context)->heavy = fuzz_work(arena) > MOST_WORK;
}

static void poll(device *d)
{
    unsigned turns = 0;

    while (!d->heavy && bl_server_poll(&d->server)) {
        fuzz_require(++turns < 10000, "the server comes to rest");
    }
    d->begin = 0;
    d->end = 0;
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

static void upload(device *d, const uint8_t *data, size_t length)
{
    uint8_t *image = malloc(length + 1);
    uint8_t body[BODY_BYTES];
    bl_sha256 hash;

    fuzz_require(image != NULL, "there is memory");
    memcpy(image, data, length);
    fuzz_seal(image, length);
    bl_store_u32(body, (uint32_t)length);
    bl_store_u32(body + 4, ARENA_BYTES);
    bl_sha256_init(&hash);
    bl_sha256_update(&hash, image, length);
    bl_sha256_final(&hash, body + 8);
    send(d, BL_MSG_UPLOAD_BEGIN, body, 8 + BL_HASH_BYTES);
    for (size_t at = 0; at < length; at += BODY_BYTES - 4) {
        size_t piece = length - at < BODY_BYTES - 4 ? length - at : BODY_BYTES - 4;
        bl_store_u32(body, (uint32_t)at);
        memcpy(body + 4, image + at, piece);
        send(d, BL_MSG_UPLOAD_DATA, body, 4 + piece);
    }
    send(d, BL_MSG_UPLOAD_END, body, 0);
    free(image);
}

static void init(device *d)
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
    /* Each buffer by itself and of exactly its size: the sanitizers watch its ends. */
    p->arena = malloc(ARENA_BYTES);
    p->arena_bytes = ARENA_BYTES;
    p->body_bytes = BODY_BYTES;
    p->receive_buffer = malloc(BL_FRAME_BYTES(BODY_BYTES));
    p->send_buffer = malloc(BL_FRAME_BYTES(BODY_BYTES));
    p->firmware_version = "0";
    p->board = "fuzz";
    p->isa = "host";
    bl_frame_decoder_init(&d->reader, malloc(BL_FRAME_BYTES(BODY_BYTES)), BL_FRAME_BYTES(BODY_BYTES));
    bl_server_init(&d->server, p);
    send(d, BL_MSG_HELLO_REQUEST, version, sizeof version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static device d;

    init(&d);
    while (size >= 3 && !d.heavy) {
        uint8_t kind = data[0];
        size_t length = bl_load_u16(data + 1);
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        if (kind == 0xFE) {
            upload(&d, data, length);
        } else if (kind == 0xFF) {
            put(&d, data, length < LINE_BYTES ? length : LINE_BYTES);
            poll(&d);
        } else {
            send(&d, kind, data, length);
        }
        data += length;
        size -= length;
    }
    free(d.port.arena);
    free(d.port.receive_buffer);
    free(d.port.send_buffer);
    free(d.reader.buffer);
    return 0;
}
