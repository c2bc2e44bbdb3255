/* Any other Arduino board: only what every core has, Serial and micros. Larger than the default an arena is made by
 * -DBL_ARENA_BYTES. -DBL_MAX_BAUD says that Serial is a UART which takes every rate up to that one, within 2 %: no core
 * tells what it makes of a rate, so that without it the rate is fixed. */
#include <Arduino.h>

#if !defined(ARDUINO_ARCH_AVR) && !defined(ARDUINO_ARCH_ESP32)

#include "arduino_board.h"
#include "bl_server.h"

#ifndef BL_ARENA_BYTES
#define BL_ARENA_BYTES 8192
#endif
#ifndef BL_BODY_BYTES
#define BL_BODY_BYTES 256
#endif

/* Bytes that the core's receive buffer holds; where it does not say, the line is native USB, which holds its host back. */
#ifndef BL_RING_BYTES
#if defined(SERIAL_RX_BUFFER_SIZE)
#define BL_RING_BYTES SERIAL_RX_BUFFER_SIZE
#elif defined(SERIAL_BUFFER_SIZE)
#define BL_RING_BYTES SERIAL_BUFFER_SIZE
#else
#define BL_RING_BYTES 256
#endif
#endif
#if BL_RING_BYTES < 128
#error "the receive buffer holds no frame: build with -DSERIAL_RX_BUFFER_SIZE=256, or what this core calls it"
#endif

/* Words, so that it is aligned. */
static uint32_t arena[BL_ARENA_BYTES / 4];
static const char isa[] BL_CONST = "unknown";
static uint8_t receive_buffer[BL_FRAME_BYTES(BL_BODY_BYTES)];
static uint8_t send_buffer[BL_FRAME_BYTES(BL_BODY_BYTES)];

static size_t serial_read(void *context, uint8_t *data, size_t capacity)
{
    size_t count = 0;

    (void)context;
    while (count < capacity && Serial.available() > 0) {
        data[count++] = (uint8_t)Serial.read();
    }
    return count;
}

static void serial_write(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    (void)Serial.write(data, length);
}

static void serial_flush(void *context)
{
    (void)context;
    Serial.flush();
}

#if defined(BL_MAX_BAUD)

static uint32_t nearest_baud(void *context, uint32_t baud)
{
    (void)context;
    return baud >= BL_BAUD && baud <= BL_MAX_BAUD ? baud : 0;
}

static void set_baud(void *context, uint32_t baud)
{
    serial_flush(context);
    Serial.begin(baud);
}

static uint32_t milliseconds(void *context)
{
    (void)context;
    return (uint32_t)millis();
}

#endif

/* It turns over every 72 minutes. */
static uint64_t microseconds(void *context)
{
    static uint64_t last;

    (void)context;
    return bl_server_extend_ticks(&last, (uint32_t)micros(), 32);
}

void arduino_start(bl_port *port)
{
    uint32_t there = sizeof arena;

    Serial.begin(BL_BAUD);
    port->read = serial_read;
    port->write = serial_write;
    port->flush = serial_flush;
#if defined(BL_MAX_BAUD)
    port->nearest_baud = nearest_baud;
    port->set_baud = set_baud;
    port->milliseconds = milliseconds;
    port->boot_baud = BL_BAUD;
    port->max_baud = BL_MAX_BAUD;
#endif
    port->ticks = microseconds;
    port->arena = (uint8_t *)arena;
    port->arena_bytes = arduino_arena_cap() < there ? arduino_arena_cap() : there;
    port->receive_buffer = receive_buffer;
    port->send_buffer = send_buffer;
    port->body_bytes = BL_BODY_BYTES;
    port->send_body_bytes = BL_BODY_BYTES;
    port->window_bytes = BL_RING_BYTES - 1;
    port->isa = isa;
#if defined(F_CPU)
    port->clock_hz = F_CPU;
#endif
    port->ticks_per_second = 1000000u;
    port->timer_unit = BL_TIMER_MICROSECONDS;
    port->reset_cause = BL_RESET_UNKNOWN;
    port->boot_count = 1; /* no memory is known to outlive a reset */
    port->table_bits = 4;
}

void arduino_run(void (*serve)(void))
{
    serve();
}

void arduino_wait(void)
{
    yield();
}

void arduino_worked(void)
{
}

#endif /* neither AVR nor ESP32 */
