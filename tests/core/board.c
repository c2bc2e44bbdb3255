/* A board for tests: the core over a line, a clock and a rate that the test moves. All buffers have canaries. */
#include <stdlib.h>

#include "bl_server.h"

enum { CANARY_BYTES = 32, CANARY = 0xC5, BUFFERS = 4 };

typedef struct {
    uint8_t *bytes;
    size_t length;
} buffer;

typedef struct {
    bl_server server;
    bl_port port;
    buffer buffers[BUFFERS];
    const uint8_t *input; /* the caller's, while it polls */
    size_t input_length;
    uint8_t *output;
    size_t output_length;
    uint32_t clock_ms;
    uint32_t compute_ms; /* that pass with each look at the ticks */
    uint32_t baud;
} board;

static size_t port_read(void *context, uint8_t *data, size_t capacity)
{
    board *b = context;
    size_t count = b->input_length < capacity ? b->input_length : capacity;

    if (count > 0) {
        memcpy(data, b->input, count);
        b->input += count;
        b->input_length -= count;
    }
    return count;
}

static void port_write(void *context, const uint8_t *data, size_t length)
{
    board *b = context;

    b->output = realloc(b->output, b->output_length + length);
    if (b->output == NULL) {
        abort();
    }
    memcpy(b->output + b->output_length, data, length);
    b->output_length += length;
}

static uint64_t port_ticks(void *context)
{
    board *b = context;

    b->clock_ms += b->compute_ms;
    return b->clock_ms;
}

static uint32_t port_memory(void *context)
{
    (void)context;
    return 123;
}

static uint32_t port_milliseconds(void *context)
{
    return ((board *)context)->clock_ms;
}

/* A clock of 16 MHz, divided by 16 and by a whole number, as a small chip has it. */
static uint32_t port_nearest_baud(void *context, uint32_t baud)
{
    uint32_t divider = (1000000u + baud / 2u) / baud;
    uint32_t made = divider > 0 ? 1000000u / divider : 0;
    uint32_t off = made > baud ? made - baud : baud - made;

    (void)context;
    return (uint64_t)off * 1000u > (uint64_t)baud * BL_MAX_BAUD_ERROR_PERMILLE ? 0 : made;
}

static void port_set_baud(void *context, uint32_t baud)
{
    ((board *)context)->baud = baud;
}

static uint8_t *allocate(buffer *to, size_t length)
{
    to->length = length;
    to->bytes = malloc(length + 2 * CANARY_BYTES);
    if (to->bytes == NULL) {
        abort();
    }
    memset(to->bytes, CANARY, length + 2 * CANARY_BYTES);
    return to->bytes + CANARY_BYTES;
}

board *board_new(uint32_t arena_bytes, uint16_t body_bytes, uint16_t send_body_bytes, uint32_t boot_baud,
                 uint32_t max_baud, bool codes)
{
    board *b = calloc(1, sizeof *b);
    bl_port *p;

    if (b == NULL) {
        abort();
    }
    p = &b->port;
    p->context = b;
    p->read = port_read;
    p->write = port_write;
    p->ticks = port_ticks;
    p->stack_peak = port_memory; /* so that STATS has every field */
    p->heap_free_least = port_memory;
    p->arena = allocate(&b->buffers[0], arena_bytes);
    p->arena_bytes = arena_bytes;
    p->receive_buffer = allocate(&b->buffers[1], BL_FRAME_BYTES(body_bytes));
    p->send_buffer = allocate(&b->buffers[2], BL_FRAME_BYTES(send_body_bytes));
    if (codes) {
        p->code_tables = allocate(&b->buffers[3], BL_CODE_TABLES_BYTES);
    }
    p->body_bytes = body_bytes;
    p->send_body_bytes = send_body_bytes;
    p->window_bytes = 65536;
    if (max_baud > 0) {
        p->nearest_baud = port_nearest_baud;
        p->set_baud = port_set_baud;
        p->milliseconds = port_milliseconds;
        p->boot_baud = boot_baud;
        p->max_baud = max_baud;
        b->baud = boot_baud;
    }
    p->firmware_version = "test";
    p->board = "test";
    p->isa = "test";
    p->ticks_per_second = 1000;
    p->timer_unit = BL_TIMER_MICROSECONDS;
    p->simulated = true;
    bl_server_init(&b->server, p);
    return b;
}

void board_free(board *b)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        free(b->buffers[i].bytes);
    }
    free(b->output);
    free(b);
}

/* Give `length` bytes to the server, and let it work: `turns` times at most, 0: until it rests. */
void board_poll(board *b, const uint8_t *data, uint32_t length, uint32_t turns)
{
    b->input = data;
    b->input_length = length;
    do {
        if (!bl_server_poll(&b->server) && b->input_length == 0) {
            break;
        }
    } while (--turns != 0);
    if (b->input_length > 0) {
        abort();
    }
}

/* Take what the server sent: at most `capacity` bytes. */
uint32_t board_take(board *b, uint8_t *data, uint32_t capacity)
{
    uint32_t count = b->output_length < capacity ? (uint32_t)b->output_length : capacity;

    if (count > 0) {
        memcpy(data, b->output, count);
        memmove(b->output, b->output + count, b->output_length - count);
        b->output_length -= count;
    }
    return count;
}

void board_set_clock(board *b, uint32_t clock_ms, uint32_t compute_ms)
{
    b->clock_ms = clock_ms;
    b->compute_ms = compute_ms;
}

uint32_t board_baud(const board *b)
{
    return b->baud;
}

uint8_t *board_arena(board *b)
{
    return b->port.arena;
}

bool board_is_intact(const board *b)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        const buffer *one = &b->buffers[i];
        for (size_t k = 0; one->bytes != NULL && k < CANARY_BYTES; k++) {
            if (one->bytes[k] != CANARY || one->bytes[CANARY_BYTES + one->length + k] != CANARY) {
                return false;
            }
        }
    }
    return true;
}

uint32_t board_ranges(void)
{
    return BL_RANGES;
}
