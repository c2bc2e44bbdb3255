/* Frames: COBS (S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", 1999) around a CRC-32 (docs/protocol.md). */
#ifndef BL_FRAME_H
#define BL_FRAME_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CRC-32 (IEEE 802.3, as zlib's crc32) of `length` bytes, going on from `crc`: 0 to begin with. */
uint32_t bl_frame_crc32(uint32_t crc, const uint8_t *data, size_t length);

/* Bytes that a frame with a body of `body` bytes takes decoded: what a receive or send buffer needs. */
#define BL_FRAME_BYTES(body) ((size_t)(body) + BL_FRAME_OVERHEAD_BYTES)

/* The most bytes that `decoded` bytes take on the line, both zero bytes included. */
#define BL_FRAME_ENCODED_BYTES(decoded) ((size_t)(decoded) + (size_t)(decoded) / 254u + 3u)

typedef enum {
    BL_FRAME_NONE = 0, /* no frame is complete yet */
    BL_FRAME_READY,    /* buffer[0 .. length) is a frame with a right CRC, the CRC included in length */
    BL_FRAME_DAMAGED,  /* a frame ended that cannot be decoded, is too short or too long; it is dropped */
    BL_FRAME_BAD_CRC   /* a frame ended whose CRC is wrong; it is dropped */
} bl_frame_event;

/* Decodes a byte stream into a buffer of the caller's; never writes beyond `capacity`. */
typedef struct {
    uint8_t *buffer;
    size_t capacity;
    size_t length;   /* bytes decoded so far; after BL_FRAME_READY the frame's, until the next byte is given */
    uint8_t left;    /* bytes left of the present COBS block */
    uint8_t code;    /* the present block's code; 0 before the first */
    bool damaged;    /* the present frame cannot be good any more: wait for its end */
    bool done;       /* the buffer holds a frame that was handed out */
} bl_frame_decoder;

/* Begin with an empty stream. `buffer` stays the caller's and must outlive the decoder. */
void bl_frame_decoder_init(bl_frame_decoder *decoder, uint8_t *buffer, size_t capacity);

/* Take one byte of the stream. Empty frames (two zero bytes in a row) are no event. */
bl_frame_event bl_frame_decode(bl_frame_decoder *decoder, uint8_t byte);

/* Takes encoded bytes, in order, in pieces of 1 to 254. */
typedef void (*bl_frame_sink)(void *context, const uint8_t *data, size_t length);

/* Write the CRC-32 behind `length` bytes of `frame` (which has room for 4 more) and hand the encoded frame to `sink`,
 * a zero byte before it and one behind. */
void bl_frame_encode(uint8_t *frame, size_t length, bl_frame_sink sink, void *context);

#ifdef __cplusplus
}
#endif

#endif /* BL_FRAME_H */
