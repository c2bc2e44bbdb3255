/* libFuzzer target: the decoder and the encoder of frames, held against others written from docs/protocol.md. An input is
 * u8 capacity of the decoder, less 1, then steps: u8 kind, u8 length, bytes.
 *     even kind   the bytes come as they are
 *     odd kind    a good frame comes that has these bytes as header and body */
#include "fuzz_common.h"

enum { STREAM_BYTES = 1 << 13, SMALL_BYTES = 8, MOST_BYTES = 256 };

typedef struct {
    uint8_t bytes[STREAM_BYTES];
    size_t length;
} stream;

static void put(stream *s, const uint8_t *data, size_t length)
{
    length = length < STREAM_BYTES - s->length ? length : STREAM_BYTES - s->length;
    memcpy(s->bytes + s->length, data, length);
    s->length += length;
}

/* CRC-32 bit by bit. */
static uint32_t crc_of(const uint8_t *data, size_t length)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc & 1u ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        }
    }
    return ~crc;
}

/* COBS block by block: each is the bytes up to the next zero, or 254 without one. Returns the length of the code. */
static size_t encode(const uint8_t *data, size_t length, uint8_t *out)
{
    size_t at = 0;
    size_t code_at = 0;
    size_t used = 1;
    bool open = true;

    for (; at < length; at++) {
        if (!open) {
            code_at = used++;
            open = true;
        }
        if (data[at] == 0) {
            out[code_at] = (uint8_t)(used - code_at);
            code_at = used++;
        } else {
            out[used++] = data[at];
            if (used - code_at == 255) {
                out[code_at] = 255;
                open = false;
            }
        }
    }
    if (open) {
        out[code_at] = (uint8_t)(used - code_at);
    }
    return used;
}

/* A piece of the line between zeros, as a whole. Returns the event; a good frame's length is put in *length. */
static bl_frame_event decode(const uint8_t *piece, size_t piece_length, size_t capacity, uint8_t *out, size_t *length)
{
    size_t used = 0;
    size_t at = 0;

    while (at < piece_length) {
        size_t block = piece[at++] - 1u;
        bool full = block == 254;
        if (block > piece_length - at) {
            return BL_FRAME_DAMAGED;
        }
        memcpy(out + used, piece + at, block);
        used += block;
        at += block;
        if (!full && at < piece_length) {
            out[used++] = 0;
        }
    }
    if (used > capacity || used < 8) {
        return BL_FRAME_DAMAGED;
    }
    *length = used;
    return crc_of(out, used - 4) == bl_load_u32(out + used - 4) ? BL_FRAME_READY : BL_FRAME_BAD_CRC;
}

static stream encoded;

static void sink(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    fuzz_require(length >= 1 && length <= 254, "pieces of 1 to 254 bytes are written");
    put(&encoded, data, length);
}

/* Put a good frame on the line, and see that ours is what the page says. */
static void put_frame(stream *s, const uint8_t *data, size_t length)
{
    uint8_t frame[MOST_BYTES + 4];
    uint8_t code[2 * MOST_BYTES];
    size_t code_length;

    memcpy(frame, data, length);
    bl_store_u32(frame + length, crc_of(data, length));
    code_length = encode(frame, length + 4, code);
    encoded.length = 0;
    bl_frame_encode(frame, length, sink, NULL);
    fuzz_require(encoded.length == code_length + 2 && encoded.bytes[0] == 0 && encoded.bytes[code_length + 1] == 0 &&
                     memcmp(encoded.bytes + 1, code, code_length) == 0,
                 "a frame is encoded as the page says");
    fuzz_require(encoded.length <= BL_FRAME_ENCODED_BYTES(length + 4), "and is no longer than promised");
    put(s, encoded.bytes, encoded.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static stream line;
    static uint8_t expected[STREAM_BYTES];
    bl_frame_decoder decoder;
    uint8_t *buffer;
    size_t capacity;
    size_t begin = 0;

    if (size == 0) {
        return 0;
    }
    capacity = data[0] + (size_t)SMALL_BYTES;
    data++;
    size--;
    line.length = 0;
    while (size >= 2) {
        size_t length = data[1] < size - 2 ? data[1] : size - 2;
        if (data[0] & 1u) {
            put_frame(&line, data + 2, length);
        } else {
            put(&line, data + 2, length);
        }
        data += 2 + length;
        size -= 2 + length;
    }
    buffer = malloc(capacity); /* of exactly its size: the sanitizers watch its ends */
    fuzz_require(buffer != NULL, "there is memory");
    bl_frame_decoder_init(&decoder, buffer, capacity);
    for (size_t at = 0; at < line.length; at++) {
        bl_frame_event event = bl_frame_decode(&decoder, line.bytes[at]);
        if (line.bytes[at] != 0 || at == begin) {
            fuzz_require(event == BL_FRAME_NONE, "only the end of a frame is an event");
        } else {
            size_t length = 0;
            fuzz_require(event == decode(line.bytes + begin, at - begin, capacity, expected, &length),
                         "byte by byte comes what comes of the whole");
            fuzz_require(event != BL_FRAME_READY ||
                             (decoder.length == length && memcmp(decoder.buffer, expected, length) == 0),
                         "and so do the bytes");
        }
        begin = line.bytes[at] == 0 ? at + 1 : begin;
    }
    free(buffer);
    return 0;
}
