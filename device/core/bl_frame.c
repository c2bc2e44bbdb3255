#include "bl_frame.h"

/* One entry a nibble: 64 bytes instead of 1 KB, so that it fits the smallest boards. */
static const uint32_t crc_table[16] BL_CONST = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
    0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
};

uint32_t bl_frame_crc32(uint32_t crc, const uint8_t *data, size_t length)
{
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ bl_const_u32(&crc_table[crc & 15u]);
        crc = (crc >> 4) ^ bl_const_u32(&crc_table[crc & 15u]);
    }
    return ~crc;
}

static void restart(bl_frame_decoder *decoder)
{
    decoder->length = 0;
    decoder->left = 0;
    decoder->code = 0;
    decoder->damaged = false;
    decoder->done = false;
}

void bl_frame_decoder_init(bl_frame_decoder *decoder, uint8_t *buffer, size_t capacity)
{
    decoder->buffer = buffer;
    decoder->capacity = capacity;
    restart(decoder);
}

static void put(bl_frame_decoder *decoder, uint8_t byte)
{
    if (decoder->length < decoder->capacity) {
        decoder->buffer[decoder->length++] = byte;
    } else {
        decoder->damaged = true;
    }
}

static bl_frame_event finish(bl_frame_decoder *decoder)
{
    size_t length = decoder->length;

    if (decoder->damaged || decoder->left > 0 || length < BL_FRAME_OVERHEAD_BYTES) {
        restart(decoder);
        return BL_FRAME_DAMAGED;
    }
    if (bl_frame_crc32(0, decoder->buffer, length - BL_FRAME_CRC_BYTES) !=
        bl_load_u32(decoder->buffer + length - BL_FRAME_CRC_BYTES)) {
        restart(decoder);
        return BL_FRAME_BAD_CRC;
    }
    decoder->done = true;
    return BL_FRAME_READY;
}

bl_frame_event bl_frame_decode(bl_frame_decoder *decoder, uint8_t byte)
{
    if (decoder->done) {
        restart(decoder);
    }
    if (byte == 0) {
        return decoder->code == 0 ? BL_FRAME_NONE : finish(decoder);
    }
    if (decoder->left > 0) {
        decoder->left--;
        put(decoder, byte);
        return BL_FRAME_NONE;
    }
    /* A block begins: the zero byte that the block before stood for comes first, unless that one was full. */
    if (decoder->code != 0 && decoder->code != 0xFFu) {
        put(decoder, 0);
    }
    decoder->code = byte;
    decoder->left = (uint8_t)(byte - 1u);
    return BL_FRAME_NONE;
}

void bl_frame_encode(uint8_t *frame, size_t length, bl_frame_sink sink, void *context)
{
    size_t position = 0;
    uint8_t code = 0;

    bl_store_u32(frame + length, bl_frame_crc32(0, frame, length));
    length += BL_FRAME_CRC_BYTES;
    sink(context, &code, 1);
    for (;;) {
        size_t run = 0;
        while (run < 254u && position + run < length && frame[position + run] != 0) {
            run++;
        }
        code = (uint8_t)(run + 1u);
        sink(context, &code, 1);
        if (run > 0) {
            sink(context, frame + position, run);
        }
        position += run;
        if (position == length) {
            break;
        }
        if (run < 254u) {
            position++; /* the zero byte that the block stands for */
        }
    }
    code = 0;
    sink(context, &code, 1);
}
