/* bitloop-sim: the core as a process of its own behind a stream socket. */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "native_faults.h"
#include "native_identity.h"
#include "native_options.h"

enum { EXIT_CRASHED = 70 };

typedef struct {
    bl_server server;
    bl_port port;
    faults faults;
    int fd;
    bool closed;
    bool reset_done;
    bool reset_pending;
    uint32_t frames;      /* sent since the process began */
    uint8_t *input;       /* received bytes [begin, end) that the core has not read */
    size_t input_capacity;
    size_t input_begin;
    size_t input_end;
    uint8_t *output;      /* the encoded frame that is being written */
    size_t output_capacity;
    size_t output_length;
    uint8_t *tap;         /* a decoded frame, while faults change it */
    float pixel_table[256];
} simulator;

/* --- the line ----------------------------------------------------------------------------------------------------- */

/* Take what the socket holds, as far as there is room. */
static void receive(simulator *s)
{
    ssize_t count;

    if (s->input_begin > 0) {
        memmove(s->input, s->input + s->input_begin, s->input_end - s->input_begin);
        s->input_end -= s->input_begin;
        s->input_begin = 0;
    }
    if (s->input_end == s->input_capacity) {
        return;
    }
    count = recv(s->fd, s->input + s->input_end, s->input_capacity - s->input_end, 0);
    if (count > 0) {
        s->input_end += (size_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        s->closed = true;
    }
}

static void wait_for(simulator *s, bool writable)
{
    struct pollfd entry = {.fd = s->fd, .events = 0, .revents = 0};

    if (writable) {
        entry.events |= POLLOUT;
    }
    if (s->input_end - s->input_begin < s->input_capacity) {
        entry.events |= POLLIN;
    }
    (void)poll(&entry, 1, -1);
    if (entry.revents & (POLLIN | POLLHUP | POLLERR)) {
        receive(s);
    }
}

static void send_all(simulator *s, const uint8_t *data, size_t length)
{
    while (length > 0 && !s->closed) {
        ssize_t count = send(s->fd, data, length, MSG_NOSIGNAL);
        if (count > 0) {
            data += count;
            length -= (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            wait_for(s, true);
        } else if (errno != EINTR) {
            s->closed = true;
        }
    }
}

static size_t port_read(void *context, uint8_t *data, size_t capacity)
{
    simulator *s = context;
    size_t count;

    if (s->input_begin == s->input_end) {
        receive(s);
    }
    count = s->input_end - s->input_begin;
    count = count < capacity ? count : capacity;
    memcpy(data, s->input + s->input_begin, count);
    s->input_begin += count;
    return count;
}

/* --- faults of the line ------------------------------------------------------------------------------------------- */

static void append(void *context, const uint8_t *data, size_t length)
{
    simulator *s = context;

    memcpy(s->output + s->output_length, data, length);
    s->output_length += length;
}

/* Decode the frame in `output`, let the faults change it, encode it again. */
static void change_frame(simulator *s)
{
    bl_frame_decoder decoder;
    size_t length;

    bl_frame_decoder_init(&decoder, s->tap, BL_FRAME_BYTES(s->port.body_bytes));
    for (size_t i = 0; i < s->output_length; i++) {
        (void)bl_frame_decode(&decoder, s->output[i]);
    }
    length = faults_apply_frame(&s->faults, s->tap, decoder.length - BL_FRAME_CRC_BYTES);
    s->output_length = 0;
    if (length > 0) {
        bl_frame_encode(s->tap, length, append, s);
    }
}

static void add_noise(simulator *s, const fault *noise)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->output_length; i++) {
        uint8_t byte = s->output[i];
        if (faults_random(&s->faults) < noise->drop) {
            continue;
        }
        if (faults_random(&s->faults) < noise->flip) {
            byte ^= (uint8_t)(1u << (unsigned)(faults_random(&s->faults) * 8.0));
        }
        s->output[kept++] = byte;
    }
    s->output_length = kept;
}

static bool due(const simulator *s, fault_kind kind)
{
    const fault *f = faults_find(&s->faults, kind);

    return f != NULL && s->frames >= f->after;
}

static void send_output(simulator *s)
{
    const fault *noise = faults_find(&s->faults, FAULT_NOISE);

    if (due(s, FAULT_CRASH)) {
        _exit(EXIT_CRASHED);
    }
    if (due(s, FAULT_RESET) && !s->reset_done) {
        s->reset_pending = true;
    }
    if (!due(s, FAULT_SILENT) && !s->reset_pending) {
        if (faults_change_frames(&s->faults)) {
            change_frame(s);
        }
        for (size_t i = 0; due(s, FAULT_GARBAGE) && i < s->output_length; i++) {
            s->output[i] = (uint8_t)(faults_random(&s->faults) * 256.0);
        }
        if (noise != NULL) {
            add_noise(s, noise);
        }
        send_all(s, s->output, s->output_length);
    }
    s->frames++;
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

/* --- the rest of the port ----------------------------------------------------------------------------------------- */

/* Processor time of the thread rather than the wall clock: what other processes do meanwhile is not counted. */
static uint64_t port_ticks(void *context)
{
    struct timespec now;

    (void)context;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
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
}

static void boot(simulator *s)
{
    static const char banner[] = "bitloop-sim: boot\r\n";
    static const char text[] = "booted";
    const fault *probe = faults_find(&s->faults, FAULT_PROBE);

    bl_server_init(&s->server, &s->port);
    if (probe != NULL) {
        s->server.probe_results[probe->number % BL_PROBE_COUNT] ^= 1u;
    }
    if (s->reset_done || faults_find(&s->faults, FAULT_LOG) != NULL) {
        send_all(s, (const uint8_t *)banner, sizeof banner - 1);
    }
    if (faults_find(&s->faults, FAULT_LOG) != NULL) {
        bl_server_log(&s->server, BL_LOG_INFO, text, sizeof text - 1);
    }
}

static void serve(simulator *s)
{
    boot(s);
    while (!s->closed) {
        bool busy = bl_server_poll(&s->server);
        if (s->reset_pending) {
            s->reset_pending = false;
            s->reset_done = true;
            s->port.boot_count++;
            s->port.reset_cause = BL_RESET_SOFTWARE;
            boot(s);
        } else if (!busy) {
            wait_for(s, false);
        }
    }
}

/* --- set-up ------------------------------------------------------------------------------------------------------- */

static int accept_one(uint16_t port)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd;
    int on = 1;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        return -1;
    }
    (void)printf("%u\n", (unsigned)ntohs(address.sin_port));
    (void)fflush(stdout);
    fd = accept(listener, NULL, NULL);
    (void)close(listener);
    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

static bool allocate(simulator *s)
{
    bl_port *p = &s->port;

    /* Rounded up, so that painting and the last slot may use every byte of a 4-byte aligned arena. */
    p->arena = malloc(bl_align4(p->arena_bytes) + 4u);
    p->receive_buffer = malloc(BL_FRAME_BYTES(p->body_bytes));
    p->send_buffer = malloc(BL_FRAME_BYTES(p->send_body_bytes));
    p->code_tables = malloc(BL_CODE_TABLES_BYTES);
    s->tap = malloc(BL_FRAME_BYTES(p->body_bytes));
    s->input_capacity = p->window_bytes;
    s->input = malloc(s->input_capacity);
    s->output_capacity = BL_FRAME_ENCODED_BYTES(BL_FRAME_BYTES(p->body_bytes));
    s->output = malloc(s->output_capacity);
    p->static_bytes = (uint32_t)(sizeof *s + 3u * BL_FRAME_BYTES(p->body_bytes) + s->input_capacity + s->output_capacity);
    return p->arena && p->receive_buffer && p->send_buffer && p->code_tables && s->tap && s->input && s->output;
}

static void fill_port(simulator *s)
{
    bl_port *p = &s->port;

    bl_engine_fill_pixel_table(s->pixel_table);
    p->context = s;
    p->read = port_read;
    p->write = port_write;
    p->ticks = port_ticks;
    p->image_loaded = port_image_loaded;
    if (faults_find(&s->faults, FAULT_LAYER) != NULL) {
        p->layer_done = port_layer_done;
    }
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
    int status = native_options_parse(&options, argc, argv);

    if (status >= 0) {
        return status;
    }
    s.faults = options.faults;
    s.port.board = options.board;
    s.port.arena_bytes = options.arena_bytes;
    s.port.body_bytes = options.body_bytes;
    s.port.send_body_bytes = options.body_bytes;
    s.port.window_bytes = options.window_bytes;
    s.port.boot_count = options.boot_count;
    fill_port(&s);
    if (!allocate(&s)) {
        (void)fputs("bitloop-sim: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    s.fd = options.listens ? accept_one(options.port) : options.fd;
    if (s.fd < 0 || fcntl(s.fd, F_SETFL, fcntl(s.fd, F_GETFL) | O_NONBLOCK) < 0) {
        (void)fprintf(stderr, "bitloop-sim: the socket cannot be used: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    serve(&s);
    return 0;
}
