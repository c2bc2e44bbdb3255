/* AVR: the model gets all RAM between the firmware's own state and the stack. Registers: ATmega2560 data sheet (DS40002211),
 * the same in every ATmega with a 16-bit Timer1. */
#include <Arduino.h>

#if defined(ARDUINO_ARCH_AVR)

#include <avr/wdt.h>
#include <util/atomic.h>
#include <util/delay_basic.h>

#include "arduino_board.h"
#include "bl_boot.h"
#include "bl_stack.h"

#ifndef BL_STACK_BYTES
#define BL_STACK_BYTES 1152
#endif
#ifndef BL_BODY_BYTES
#define BL_BODY_BYTES 200 /* so that two encoded frames fit a ring of 512 */
#endif
#ifndef BL_SEND_BODY_BYTES
#define BL_SEND_BODY_BYTES 112
#endif

#if RAMEND - RAMSTART < 4095
#error "bitloop takes 2 KB of RAM itself: choose an AVR with 4 KB or more, such as an ATmega2560"
#endif
#if SERIAL_RX_BUFFER_SIZE < 128
#error "the receive buffer holds no frame: build with -DSERIAL_RX_BUFFER_SIZE=512"
#endif

/* Of the linker's own script; the arena begins where it lets a heap begin. Nothing here allocates. */
extern "C" uint8_t __data_start[], __heap_start[];

static const char isa[] BL_CONST = "AVR, " ARDUINO_TEXT(__AVR_DEVICE_NAME__);

static bl_boot_record boot __attribute__((section(".noinit")));
static uint8_t receive_buffer[BL_FRAME_BYTES(BL_BODY_BYTES)];
static uint8_t send_buffer[BL_FRAME_BYTES(BL_SEND_BODY_BYTES)];

/* --- reset ------------------------------------------------------------------------------------------------------- */

/* After a reset by the watchdog it goes on running with its shortest time, 16 ms (10.4.2): it is stopped here, well before.
 * A boot loader may have read the flags, and cleared them. */
static uint8_t reset_cause(void)
{
    uint8_t flags = MCUSR;

    MCUSR = 0;
    wdt_disable();
    if (flags & _BV(WDRF)) {
        return BL_RESET_WATCHDOG;
    }
    if (flags & _BV(PORF)) {
        return BL_RESET_POWER_ON; /* may set the flag of brown-out too */
    }
    if (flags & _BV(BORF)) {
        return BL_RESET_BROWNOUT;
    }
    return flags & _BV(EXTRF) ? BL_RESET_PIN : BL_RESET_UNKNOWN;
}

/* --- line -------------------------------------------------------------------------------------------------------- */

/* Where Serial's ring is larger than 256 its places are of two bytes, which Serial reads and writes with interrupts on:
 * half of one may be of before an interrupt. So none is let in meanwhile; a byte at a time, so that none waits long. */
static size_t serial_read(void *context, uint8_t *data, size_t capacity)
{
    size_t count = 0;
    int received = 0;

    (void)context;
    while (count < capacity && received >= 0) {
        ATOMIC_BLOCK(ATOMIC_FORCEON)
        {
            received = Serial.read();
        }
        if (received >= 0) {
            data[count++] = (uint8_t)received;
        }
    }
    return count;
}

static void serial_write(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    (void)Serial.write(data, length);
}

/* When the ring is empty no interrupt is left to come: the last characters leave the USART by themselves. Serial.flush
 * would wait for them too, by a flag (TXC) that QEMU does not keep. */
static void serial_flush(void *context)
{
    (void)context;
    while (Serial.availableForWrite() < SERIAL_TX_BUFFER_SIZE - 1) {
    }
}

#if defined(HAVE_HWSERIAL0) /* else Serial is the chip's own USB, which has no rate */

/* An interrupt that receives a byte takes about 100 cycles, one of the others that come between as long, and the USART
 * holds two bytes meanwhile: 320 cycles a byte are enough. */
static const uint32_t MOST_BAUD = F_CPU / 32;

/* What Serial.begin sets UBRR to (its own words), and whether it divides by 16 instead of 8. */
static uint16_t divisor_of(uint32_t baud, bool *by_16)
{
    uint16_t setting = (uint16_t)((F_CPU / 4 / baud - 1) / 2);

    *by_16 = (F_CPU == 16000000UL && baud == 57600) || setting > 4095;
    return *by_16 ? (uint16_t)((F_CPU / 8 / baud - 1) / 2) : setting;
}

static uint32_t nearest_baud(void *context, uint32_t baud)
{
    bool by_16;
    uint32_t clocks, real, off;

    (void)context;
    if (baud < F_CPU / 65536 || baud > MOST_BAUD) {
        return 0;
    }
    clocks = (divisor_of(baud, &by_16) + 1ul) * (by_16 ? 16u : 8u); /* a bit */
    real = (F_CPU + clocks / 2) / clocks;
    off = real > baud ? real - baud : baud - real;
    return off * 1000u <= baud * BL_MAX_BAUD_ERROR_PERMILLE ? real : 0;
}

/* The bits of two characters, which the USART itself holds when Serial's ring is empty, must have left before: by the
 * clock, for the flag that says so (TXC) is one that QEMU does not keep. 4 cycles a turn of the loop. */
static void set_baud(void *context, uint32_t baud)
{
    static uint32_t present = BL_BAUD;

    serial_flush(context);
    _delay_loop_2((uint16_t)(F_CPU / 4 * 20 / present + 1));
    Serial.begin(baud);
    present = baud;
}

#endif

/* --- time -------------------------------------------------------------------------------------------------------- */

/* A 16-bit timer at the processor's clock, extended by its overflow. Timer5 where there is one: QEMU counts instructions
 * (-icount) only with a timer whose registers lie above 0xFF, and ends when it must tell the time to another. */
#if defined(TCNT5)
#define TIMER(name) name##5
#define TIMER_OVERFLOW_vect TIMER5_OVF_vect
#define TIMER_OVERFLOW_FLAG _BV(TOV5)
#else
#define TIMER(name) name##1
#define TIMER_OVERFLOW_vect TIMER1_OVF_vect
#define TIMER_OVERFLOW_FLAG _BV(TOV1)
#endif

static volatile uint32_t turns; /* of the timer, 65,536 ticks each */
static uint64_t counted;        /* ticks besides those */

ISR(TIMER_OVERFLOW_vect)
{
    turns++;
    TIMER(TIFR) = 0; /* of no effect on a chip, which has cleared the flag; QEMU leaves that to us */
}

#if defined(TCNT5)
/* Where older QEMUs go for Timer5 (and all vectors above 32). Timer3 itself is never started. */
ISR(TIMER3_COMPB_vect, ISR_ALIASOF(TIMER5_OVF_vect));
#endif

/* Ticks before its overflow in which the timer is not started anew: more than pass between reading and writing it. */
static const uint16_t TURN_MARGIN = 32;

/* The timer starts anew at each reading, so that its interrupt falls on the same instruction each time an image is run,
 * and costs the same. */
static uint64_t timer_read(void *context)
{
    uint16_t count;

    (void)context;
    for (;;) {
        cli();
        count = TIMER(TCNT);
        if (count <= 0xFFFFu - TURN_MARGIN && !(TIMER(TIFR) & TIMER_OVERFLOW_FLAG)) {
            break;
        }
        sei();
        (void)TIMER(TCNT); /* the turn is counted after the instruction that follows SEI; in QEMU, at such a read */
    }
    TIMER(TCNT) = 0;
    counted += count;
    uint64_t now = counted + ((uint64_t)turns << 16);
    sei();
    return now;
}

/* The timer's cycles as milliseconds. What was not asked for in 268 s (at 16 MHz) is lost. */
static uint32_t milliseconds(void *context)
{
    static uint32_t passed_ms;
    static uint32_t counted_to;
    uint32_t cycles = (uint32_t)timer_read(context) - counted_to;
    uint32_t passed = cycles / (F_CPU / 1000);

    passed_ms += passed;
    counted_to += passed * (F_CPU / 1000);
    return passed_ms;
}

static void timer_start(void)
{
#if defined(TCNT5)
    TCCR5A = 0; /* counts to 65,535 (17.9.1) */
    TCCR5B = _BV(CS50);
    TIMSK5 = _BV(TOIE5);
#else
    TCCR1A = 0;
    TCCR1B = _BV(CS10);
    TIMSK1 = _BV(TOIE1);
#endif
}

/* Every chip loads a calibration of its oscillator as it starts; QEMU has no such register, and reads 0. */
static bool is_emulated(void)
{
    return OSCCAL == 0;
}

/* --- stack ------------------------------------------------------------------------------------------------------- */

/* For whoever reads the ELF file, in which data lie from 0x800000 on. */
__asm__(".global __bl_stack_low, __bl_stack_top\n\t"
        ".set __bl_stack_top, 0x800000 + " ARDUINO_TEXT(RAMEND) " + 1\n\t"
        ".set __bl_stack_low, __bl_stack_top - " ARDUINO_TEXT(BL_STACK_BYTES));

static uint8_t *const stack_top = (uint8_t *)(RAMEND + 1);
static uint8_t *const stack_low = (uint8_t *)(RAMEND + 1 - BL_STACK_BYTES);

/* Room for the return address and registers of bl_stack_paint itself, where it is called and not inlined. */
enum { PAINT_MARGIN = 16 };

static void stack_paint(void *context)
{
    (void)context;
    bl_stack_paint(stack_low, (uint8_t *)(SP - PAINT_MARGIN));
}

static uint32_t stack_peak(void *context)
{
    (void)context;
    return bl_stack_peak(stack_low, stack_top);
}

/* --- the board --------------------------------------------------------------------------------------------------- */

void arduino_start(bl_port *port)
{
    bool emulated = is_emulated();
    uint8_t *arena = (uint8_t *)(((uintptr_t)__heap_start + 3u) & ~(uintptr_t)3u);
    uint32_t there = (uint32_t)(stack_low - arena) & ~(uint32_t)3u;

    port->reset_cause = reset_cause();
    (void)bl_boot_begin(&boot);
    stack_paint(NULL);
    timer_start();
    Serial.begin(BL_BAUD);
    port->read = serial_read;
    port->write = serial_write;
    port->flush = serial_flush;
#if defined(HAVE_HWSERIAL0)
    port->nearest_baud = nearest_baud;
    port->set_baud = set_baud;
    port->milliseconds = milliseconds;
    port->boot_baud = BL_BAUD;
    port->max_baud = MOST_BAUD;
#endif
    port->ticks = timer_read;
    port->stack_peak = stack_peak;
    port->stack_paint = stack_paint;
    port->arena = arena;
    port->arena_bytes = arduino_arena_cap() < there ? arduino_arena_cap() : there;
    port->receive_buffer = receive_buffer;
    port->send_buffer = send_buffer;
    port->body_bytes = BL_BODY_BYTES;
    port->send_body_bytes = BL_SEND_BODY_BYTES;
    port->window_bytes = SERIAL_RX_BUFFER_SIZE - 1;
    port->static_bytes = (uint32_t)(__heap_start - __data_start);
    port->isa = isa;
    port->clock_hz = F_CPU;
    /* QEMU's tick lasts whole nanoseconds: 62 at 16 MHz. */
    port->ticks_per_second = emulated ? 1000000000u / (1000000000u / F_CPU) : F_CPU;
    port->timer_unit = emulated ? BL_TIMER_INSTRUCTIONS_SCALED : BL_TIMER_CYCLES;
    port->boot_count = boot.boots;
    port->table_bits = 4;
    port->simulated = emulated;
}

/* In place of the core's main: that starts all timers and the converter, for millis, PWM and analogRead. None of it is
 * used here, and so nothing interrupts an image but the timer above. */
int main(void)
{
    sei();
    setup();
    for (;;) {
        loop();
    }
}

void arduino_run(void (*serve)(void))
{
    serve();
}

/* The processor is not put to sleep: QEMU's would not go on behind the instruction. */
void arduino_wait(void)
{
}

void arduino_worked(void)
{
}

#endif /* ARDUINO_ARCH_AVR */
