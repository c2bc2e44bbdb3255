/* The device's side of docs/protocol.md: one state machine that never waits for bytes. */
#ifndef BL_SERVER_H
#define BL_SERVER_H

#include "bl_engine.h"
#include "bl_port.h"
#include "bl_ranges.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the arena is painted with before an upload. */
#define BL_SERVER_PAINT 0xA5u

/* The state that an ERROR BAD_STATE carries. */
typedef enum {
    BL_SERVER_EMPTY = 0,  /* no image, no upload */
    BL_SERVER_UPLOADING,  /* data are expected */
    BL_SERVER_REFUSED,    /* the upload was complete and refused */
    BL_SERVER_LOADED,     /* an image is there, no run */
    BL_SERVER_RUNNING
} bl_server_state;

typedef struct {
    uint32_t frames_received;
    uint32_t frames_sent;
    uint32_t crc_errors;
    uint32_t framing_errors;
    uint32_t stale_frames;
    uint32_t images_run;
} bl_server_stats;

typedef struct {
    uint8_t hash[BL_HASH_BYTES]; /* announced; once loaded, as computed from the arena */
    uint32_t length;             /* bytes of the image; 0: none */
    uint32_t next;               /* bytes received; more lie in bl_server.beyond */
    uint32_t base;               /* bytes of the image that a delta is made of; 0: no delta */
    uint16_t copies;             /* of a delta, done */
    bool written;                /* data came, so that no copy may come any more */
    bl_status status;            /* of the checks, once refused */
    uint32_t details[2];
} bl_server_upload;

typedef struct {
    uint8_t mode;
    uint8_t outputs;
    uint16_t last_layer;    /* the last one computed */
    bool stops;             /* a stop layer was asked for */
    uint16_t slots;
    uint16_t record_bytes;  /* of a result on the line */
    uint32_t images;
    uint32_t next;          /* position of the pixel stream */
    uint32_t limit;         /* credit: the stream's position the host may send up to */
    uint32_t told;          /* the limit that the host was last told */
    uint32_t computed;      /* images computed, sent and acknowledged: acknowledged <= sent <= computed */
    uint32_t sent;
    uint32_t acknowledged;
} bl_server_run;

/* The weights that travel with each batch (docs/protocol.md). */
typedef struct {
    uint32_t pass;   /* batches finished in this run */
    uint32_t next;   /* position in the pass */
    uint32_t limit;  /* credit: the end of the chunk that is wanted, or `next` */
    uint32_t begin;  /* position of the chunk's first byte */
    uint32_t column; /* first output channel of the chunk */
    uint32_t crc;    /* of the tensor's chunks before it */
    uint16_t layer;  /* first layer of the stage under way */
    uint16_t image;  /* of the batch: the next one in that stage */
    bool busy;       /* a batch is under way */
} bl_server_stream;

/* The line's rate (docs/protocol.md, "Rate"), where the port can change it. */
typedef struct {
    uint32_t asked;      /* the rate as the host, or the port at boot, named it */
    uint32_t polled_ms;  /* when the two below were brought up to date */
    uint16_t silent_ms;  /* since the last good frame, without the time of computing */
    uint16_t noise_ms;   /* since the first byte behind that */
    bool noise;          /* there was such a byte */
    bool committed;
} bl_server_baud;

/* All state of a device: the core's own, but for the probe's results, which a port may look at. */
typedef struct {
    const bl_port *port;
    bl_frame_decoder decoder;
    bl_server_state state;
    uint16_t session; /* 0 before the first HELLO_REQUEST */
    uint32_t probe_results[BL_PROBE_COUNT];
    bl_server_upload upload;
    bool painted;           /* the arena was painted, so that its peak can be told */
    bl_image_header header; /* of the loaded image */
    bl_server_run run;
    bl_server_stream stream;
    bl_ranges beyond;       /* received behind a gap: of the upload, else the run's pixels, else the weights: one at a time */
    uint8_t code_next[2];   /* bytes of each table of codes that are here; BL_CODE_LENGTHS_BYTES: it was made */
    bl_server_baud baud;
    bl_server_stats stats;
    uint64_t layer_ticks;   /* when the last layer ended, while an image is computed */
    uint8_t *layer_record;  /* where its ticks go; NULL when they are not asked for */
} bl_server;

/* Begin as after a reset: nothing is loaded. `port` must outlive the server. Runs the arithmetic probe. */
void bl_server_init(bl_server *server, const bl_port *port);

/* Do what there is to do: take received bytes, answer, compute at most one image, send at most one frame of results.
 * Returns true if there may be more to do at once, false if only new bytes can bring work (the port may sleep). */
bool bl_server_poll(bl_server *server);

/* Send a LOG event: `length` bytes of text, cut to the longest body. */
void bl_server_log(bl_server *server, uint8_t level, const char *text, size_t length);

/* Extend a counter of `bits` (1 to 32) to 64 bits. Must be called at least once in each turn of the counter. */
uint64_t bl_server_extend_ticks(uint64_t *last, uint32_t now, unsigned bits);

#ifdef __cplusplus
}
#endif

#endif /* BL_SERVER_H */
