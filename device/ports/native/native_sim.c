/* bitloop-sim: the core as a process of its own behind a stream socket. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "native_faults.h"
#include "native_identity.h"
#include "native_limits.h"
#include "native_line.h"
#include "native_options.h"

enum { EXIT_CRASHED = 70, WAKE_MS = 100 };

static const uint64_t NEVER = UINT64_MAX;

typedef struct {
    bl_server server;
    bl_port port;
    native_line line;
    faults faults;
    native_limits limits;
    bool was_reset;
    jmp_buf reset;        /* out of whatever the core is at */
    uint64_t reset_at;    /* frames sent at which it resets next */
    uint32_t frames;      /* sent since the process began */
    uint32_t baud;        /* the rate that the line has */
    uint32_t compute_us;  /* the least that an image takes */
    uint64_t computed_at; /* when the last image was done, or the first could begin, in microseconds on the wall */
    uint8_t *output;      /* the encoded frame that is being written */
    size_t output_capacity;
    size_t output_length;
    uint8_t *tap;         /* a decoded frame, while it is changed */
    float pixel_table[256];
} simulator;

/* --- sending ------------------------------------------------------------------------------------------------------ */

static void append(void *context, const uint8_t *data, size_t length)
{
    simulator *s = context;

    memcpy(s->output + s->output_length, data, length);
    s->output_length += length;
}

/* Decode the frame in `output`, let faults and limits change it, encode it again. */
static void change_frame(simulator *s)
{
    bl_frame_decoder decoder;
    size_t length;

    bl_frame_decoder_init(&decoder, s->tap, BL_FRAME_BYTES(s->port.send_body_bytes));
    for (size_t i = 0; i < s->output_length; i++) {
        (void)bl_frame_decode(&decoder, s->output[i]);
    }
    length = native_limits_apply(&s->limits, s->tap, decoder.length - BL_FRAME_CRC_BYTES);
    length = faults_apply_frame(&s->faults, s->tap, length);
    s->output_length = 0;
    if (length > 0) {
        bl_frame_encode(s->tap, length, append, s);
    }
}

static void hang_if_frozen(simulator *s)
{
    if (faults_due(&s->faults, FAULT_FREEZE, s->frames)) {
        native_line_hang(&s->line);
    }
}

/* A reset leaves the core in the midst of what it does. Where the line has closed all is over anyway. */
static void reset_if_due(simulator *s)
{
    const fault *reset = faults_find(&s->faults, FAULT_RESET);

    if (s->frames >= s->reset_at && !s->line.closed) {
        s->reset_at = reset->every > 0 ? s->frames + (uint64_t)reset->every : NEVER;
        longjmp(s->reset, 1);
    }
}

static void send_output(simulator *s)
{
    if (faults_due(&s->faults, FAULT_CRASH, s->frames)) {
        _exit(EXIT_CRASHED);
    }
    reset_if_due(s);
    if (!faults_due(&s->faults, FAULT_SILENT, s->frames)) {
        if (faults_change_frames(&s->faults) || native_limits_any(&s->limits)) {
            change_frame(s);
        }
        s->output_length = faults_apply_line(&s->faults, s->frames, s->output, s->output_length);
        native_line_send(&s->line, s->output, s->output_length);
    }
    s->frames++;
    hang_if_frozen(s);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static uint64_t now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void sleep_until(uint64_t wake_us)
{
    for (uint64_t now = now_us(); now < wake_us; now = now_us()) {
        struct timespec rest = {.tv_sec = (time_t)((wake_us - now) / 1000000u),
                                .tv_nsec = (long)((wake_us - now) % 1000000u * 1000u)};
        (void)nanosleep(&rest, NULL);
    }
}

/* Is there an image to be computed, though nothing more may come? */
static bool has_work(const bl_server *server)
{
    const bl_server_run *run = &server->run;
    uint32_t pixels = server->header.pixels;
    uint32_t wanted = run->mode == BL_MODE_TIMING ? run->limit : (run->computed + 1u) * pixels;

    return server->state == BL_SERVER_RUNNING && run->next >= wanted && run->computed * pixels < run->limit &&
           server->stream.next >= server->stream.limit;
}

/* The next image begins from here on. Not if the one before has just been done: then it began with that, so that what a
 * sleep took too long is made up for. */
static void note_free(simulator *s)
{
    if (s->compute_us > 0 && !has_work(&s->server)) {
        s->computed_at = now_us();
    }
}

/* An image is done: take the time that it should have taken. */
static void take_time(simulator *s)
{
    uint64_t now;

    s->computed_at += s->compute_us;
    now = now_us();
    if (now > s->computed_at) {
        s->computed_at = now;
    } else {
        sleep_until(s->computed_at);
    }
}

/* --- the port ----------------------------------------------------------------------------------------------------- */

static size_t port_read(void *context, uint8_t *data, size_t capacity)
{
    simulator *s = context;

    note_free(s); /* what comes now may be the last byte of an image */
    return native_line_read(&s->line, data, capacity);
}

static void port_write(void *context, const uint8_t *data, size_t length)
{
    simulator *s = context;

    append(s, data, length);
    /* A frame lies between two zero bytes. */
    if (length == 1 && data[0] == 0 && s->output_length > 1) {
        send_output(s);
        s->output_length = 0;
    }
}

/* Processor time of the thread rather than the wall clock: what other processes do meanwhile is not counted. */
static uint64_t port_ticks(void *context)
{
    struct timespec now;

    (void)context;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Any rate that a UART's divisor might be made for. */
static uint32_t port_nearest_baud(void *context, uint32_t baud)
{
    const simulator *s = context;

    return baud <= s->port.max_baud ? baud : 0;
}

static void port_set_baud(void *context, uint32_t baud)
{
    simulator *s = context;

    if (baud != s->baud) {
        s->baud = baud;
        native_line_tell_rate(&s->line, baud);
    }
}

static uint32_t port_milliseconds(void *context)
{
    (void)context;
    return (uint32_t)(now_us() / 1000u);
}

static void port_image_loaded(void *context, uint8_t *arena)
{
    simulator *s = context;
    const char *problem = faults_apply_image(&s->faults, arena);

    if (problem != NULL) {
        (void)fprintf(stderr, "bitloop-sim: a fault cannot be injected: %s\n", problem);
        bl_server_log(&s->server, BL_LOG_ERROR, problem, strlen(problem));
    }
}

static void port_layer_done(void *context, uint16_t layer, float *output, uint32_t count)
{
    simulator *s = context;

    faults_apply_layer(&s->faults, layer, s->server.run.computed, output, count);
    if (layer == s->server.run.last_layer && s->compute_us > 0) {
        take_time(s);
    }
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static void boot(simulator *s)
{
    static const char banner[] = "bitloop-sim: boot\r\n";
    static const char text[] = "booted";
    const fault *probe = faults_find(&s->faults, FAULT_PROBE);

    bl_server_init(&s->server, &s->port);
    if (probe != NULL) {
        s->server.probe_results[probe->number % BL_PROBE_COUNT] ^= 1u;
    }
    if (s->was_reset || faults_find(&s->faults, FAULT_LOG) != NULL) {
        native_line_send(&s->line, (const uint8_t *)banner, sizeof banner - 1);
    }
    if (faults_find(&s->faults, FAULT_LOG) != NULL) {
        bl_server_log(&s->server, BL_LOG_INFO, text, sizeof text - 1);
    }
}

static void forget(simulator *s)
{
    s->was_reset = true;
    s->output_length = 0;
    native_line_forget(&s->line);
    s->port.boot_count++;
    s->port.reset_cause = BL_RESET_SOFTWARE;
    port_set_baud(s, s->port.boot_baud);
}

static void serve(simulator *s)
{
    hang_if_frozen(s);
    if (setjmp(s->reset) != 0) {
        forget(s);
    }
    boot(s);
    while (!s->line.closed) {
        if (!bl_server_poll(&s->server)) {
            native_line_wait(&s->line, s->port.milliseconds != NULL ? WAKE_MS : -1);
            s->computed_at = now_us(); /* an image that waited for an acknowledgement was not computed either */
        }
    }
}

/* --- set-up ------------------------------------------------------------------------------------------------------- */

/* All buffers; `input` is the line's. */
static bool allocate(simulator *s, uint8_t **input)
{
    bl_port *p = &s->port;

    /* Rounded up, so that painting and the last slot may use every byte of a 4-byte aligned arena. */
    p->arena = malloc(bl_align4(p->arena_bytes) + 4u);
    p->receive_buffer = malloc(BL_FRAME_BYTES(p->body_bytes));
    p->send_buffer = malloc(BL_FRAME_BYTES(p->send_body_bytes));
    s->tap = malloc(BL_FRAME_BYTES(p->send_body_bytes));
    *input = malloc(p->window_bytes);
    s->output_capacity = BL_FRAME_ENCODED_BYTES(BL_FRAME_BYTES(p->send_body_bytes));
    s->output = malloc(s->output_capacity);
    p->static_bytes = (uint32_t)(sizeof *s + BL_FRAME_BYTES(p->body_bytes) + 2u * BL_FRAME_BYTES(p->send_body_bytes) +
                                 p->window_bytes + s->output_capacity);
    if (s->limits.codings & BL_CODING_CODES) {
        p->code_tables = malloc(BL_CODE_TABLES_BYTES);
        p->static_bytes += BL_CODE_TABLES_BYTES;
        if (p->code_tables == NULL) {
            return false;
        }
    }
    return p->arena && p->receive_buffer && p->send_buffer && s->tap && *input && s->output;
}

static void fill_port(simulator *s, const native_options *options)
{
    bl_port *p = &s->port;

    bl_engine_fill_pixel_table(s->pixel_table);
    p->context = s;
    p->read = port_read;
    p->write = port_write;
    p->ticks = port_ticks;
    p->image_loaded = port_image_loaded;
    if (faults_find(&s->faults, FAULT_LAYER) != NULL || options->compute_us > 0) {
        p->layer_done = port_layer_done;
    }
    if (options->rate_fd >= 0) {
        p->nearest_baud = port_nearest_baud;
        p->set_baud = port_set_baud;
        p->milliseconds = port_milliseconds;
        p->boot_baud = options->boot_baud;
        p->max_baud = options->max_baud;
    }
    p->arena_bytes = options->arena_bytes;
    p->body_bytes = options->body_bytes;
    p->send_body_bytes = options->send_body_bytes;
    p->window_bytes = options->window_bytes;
    p->boot_count = options->boot_count;
    p->board = options->board;
    p->pixel_table = s->pixel_table;
    p->firmware_version = native_firmware_version;
    p->firmware_hash = native_firmware_hash;
    p->isa = native_isa;
    p->ticks_per_second = 1000000000u;
    p->timer_unit = BL_TIMER_HOST_NANOSECONDS;
    p->reset_cause = BL_RESET_POWER_ON;
    p->table_bits = NATIVE_TABLE_BITS;
    p->ternary_packing = BL_PACKING_BITS;
    p->simulated = true;
}

int main(int argc, char **argv)
{
    static simulator s;
    native_options options;
    const fault *reset;
    uint8_t *input;
    int fd;
    int status = native_options_parse(&options, argc, argv);

    if (status >= 0) {
        return status;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* whoever was told of the rate may go */
    s.faults = options.faults;
    s.limits = options.limits;
    s.compute_us = options.compute_us;
    s.baud = options.boot_baud;
    reset = faults_find(&s.faults, FAULT_RESET);
    s.reset_at = reset != NULL ? reset->after : NEVER;
    fill_port(&s, &options);
    if (!allocate(&s, &input)) {
        (void)fputs("bitloop-sim: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    fd = options.port >= 0 ? native_line_accept((uint16_t)options.port) : options.fd;
    if (fd < 0 || !native_line_init(&s.line, fd, options.rate_fd, input, options.window_bytes)) {
        (void)fprintf(stderr, "bitloop-sim: the socket cannot be used: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    serve(&s);
    return 0;
}
