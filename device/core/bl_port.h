/* The port: all that the core wants of a board. Fill in a bl_port, hand it to bl_server_init, then call bl_server_poll
 * for ever. The core allocates nothing: every buffer is the port's. docs/device.md tells how to write a port. */
#ifndef BL_PORT_H
#define BL_PORT_H

#include "bl_coding.h"
#include "bl_frame.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bl_port {
    void *context; /* handed to every function below */

    /* --- the line --- */

    /* Copy up to `capacity` received bytes to `data` and return how many; 0 when there are none. Never waits. While the
     * core computes an image it does not read: the port must hold `window_bytes` meanwhile. */
    size_t (*read)(void *context, uint8_t *data, size_t capacity);

    /* Send `length` bytes (1 to 254), in order. May wait for room; must go on receiving into its buffer meanwhile. */
    void (*write)(void *context, const uint8_t *data, size_t length);

    /* Wait until everything written has left, so that nothing interrupts a measurement. NULL: write waits itself. */
    void (*flush)(void *context);

    /* Received bytes that were lost because a buffer was full, since boot. NULL: cannot happen, or cannot be told. */
    uint32_t (*overruns)(void *context);

    /* The rate nearest to `baud` that the port can make, in bits a second, or 0 for none within
     * BL_MAX_BAUD_ERROR_PERMILLE. NULL: the rate cannot be changed; then neither of the two below is called. */
    uint32_t (*nearest_baud)(void *context, uint32_t baud);

    /* Change the rate, once everything written has left. `baud` is one that nearest_baud has approved. */
    void (*set_baud)(void *context, uint32_t baud);

    /* A clock that wraps; it may be off by a tenth. bl_server_poll must then be called every 100 ms or so, also when
     * nothing was received. */
    uint32_t (*milliseconds)(void *context);

    /* --- measurement --- */

    /* A counter that never goes back, in ticks of `ticks_per_second`. A narrower counter is extended by
     * bl_server_extend_ticks. Called twice an image, and after each layer if the host asks for that. */
    uint64_t (*ticks)(void *context);

    /* The most bytes of stack used since the last stack_paint, from a painted stack. NULL: the stack is not the
     * firmware's. */
    uint32_t (*stack_peak)(void *context);

    /* Paint the stack below what is in use now; called as each session begins. NULL: it was painted at boot only. */
    void (*stack_paint)(void *context);

    /* The least free bytes of the heap since boot. NULL: there is no heap. */
    uint32_t (*heap_free_least)(void *context);

    /* --- what a port may watch, or change; NULL where it does not --- */

    /* An image passed all checks and will be run from `arena`. */
    void (*image_loaded)(void *context, uint8_t *arena);

    /* A layer has written its output (bl_engine.h). */
    void (*layer_done)(void *context, uint16_t layer, float *output, uint32_t count);

    /* --- memory --- */

    uint8_t *arena;          /* aligned to 4 bytes: the image, activations, tables and queue */
    uint32_t arena_bytes;
    uint8_t *receive_buffer; /* BL_FRAME_BYTES(body_bytes) */
    uint8_t *send_buffer;    /* BL_FRAME_BYTES(send_body_bytes); must not be the same */
    uint16_t body_bytes;     /* the longest frame body that is received, BL_MIN_BODY_BYTES or more */
    uint16_t send_body_bytes; /* the longest one that is sent, BL_MIN_BODY_BYTES or more */
    uint8_t *code_tables;    /* BL_CODE_TABLES_BYTES, with which codes are decoded; NULL: they are not */
    uint32_t window_bytes;   /* bytes that `read` can hold back while the core is busy */
    uint32_t static_bytes;   /* the firmware's own state without the arena, for HELLO; 0 if not known */
    const float *pixel_table; /* 256 quotients p / 255 where division is dear, or NULL */

    /* --- identity: texts and hash lie in BL_CONST memory; texts of up to 60 bytes --- */

    const char *firmware_version;
    const uint8_t *firmware_hash; /* 32 bytes: SHA-256 over the sources; NULL: not known */
    const char *board;
    const char *isa;
    uint32_t clock_hz;         /* 0: not known */
    uint32_t boot_baud;        /* the line's rate after a reset, and the most it can have; only where nearest_baud is */
    uint32_t max_baud;
    uint32_t ticks_per_second;
    uint8_t timer_unit;        /* BL_TIMER_... */
    uint8_t reset_cause;       /* BL_RESET_... */
    uint32_t boot_count;
    uint8_t table_bits;        /* widest code that is worth a decode table in the arena; 0: never */
    uint8_t ternary_packing;   /* BL_PACKING_... that the board prefers */
    bool simulated;            /* no chip */
} bl_port;

#ifdef __cplusplus
}
#endif

#endif /* BL_PORT_H */
