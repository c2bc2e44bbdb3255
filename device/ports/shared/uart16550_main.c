/* The firmware of every port whose line is a 16550: fills in a bl_port and serves. */
#include <stdint.h>

/* Every port compiles this folder; this file is for those that bring the header below. */
#if __has_include("uart16550_board.h")

#include "uart16550_main.h"

#include "bl_boot.h"
#include "bl_pixel_table.h"
#include "bl_server.h"
#include "bl_stack.h"
#include "identity.h"
#include "uart16550.h"
#include "uart16550_board.h"

/* Bytes of arena to use at most. `qemu://` writes another number here, so that the compiler must not know this one. */
extern const uint32_t bl_port_arena_cap;
__attribute__((used)) const uint32_t bl_port_arena_cap = 0xFFFFFFFFu;

static bl_boot_record boot __attribute__((section(".noinit")));
static uint8_t receive_buffer[BL_FRAME_BYTES(BOARD_BODY_BYTES)];
static uint8_t send_buffer[BL_FRAME_BYTES(BOARD_BODY_BYTES)];
static uint8_t code_tables[BL_CODE_TABLES_BYTES];
static bl_server server;
static bl_port port;

void uart16550_last_words(const uint8_t *text, size_t length)
{
    bl_boot_note_fault(&boot);
    uart16550_send_last(text, length);
}

/* Everything below the stack pointer: an interrupt that comes meanwhile is over before the paint goes on. */
static void stack_paint(void *context)
{
    (void)context;
    bl_stack_paint(__bl_stack_low, board_stack_pointer());
}

static uint32_t stack_peak(void *context)
{
    (void)context;
    return bl_stack_peak(__bl_stack_low, __bl_stack_top);
}

static uint32_t arena_bytes(void)
{
    uint32_t there = (uint32_t)(__bl_arena_end - __bl_arena_start);
    uint32_t cap = *(const volatile uint32_t *)&bl_port_arena_cap & ~(uint32_t)3u;

    return cap < there ? cap : there;
}

static void fill_port(void)
{
    bool fault = bl_boot_begin(&boot);

    port.read = uart16550_read;
    port.write = uart16550_write;
    port.flush = uart16550_flush;
    port.overruns = uart16550_overruns;
    port.ticks = board_ticks;
    port.stack_peak = stack_peak;
    port.stack_paint = stack_paint;
    port.arena = __bl_arena_start;
    port.arena_bytes = arena_bytes();
    port.receive_buffer = receive_buffer;
    port.send_buffer = send_buffer;
    port.body_bytes = BOARD_BODY_BYTES;
    port.send_body_bytes = BOARD_BODY_BYTES;
    port.code_tables = code_tables;
    port.window_bytes = BOARD_RING_BYTES - 1u;
    port.static_bytes = (uint32_t)(__bl_static_end - __bl_static_start);
    port.pixel_table = bl_pixel_table;
    port.firmware_version = bl_firmware_version;
    port.firmware_hash = bl_firmware_hash;
    port.board = BOARD_NAME;
    port.isa = BOARD_ISA;
    port.ticks_per_second = BOARD_TICKS_PER_SECOND;
    port.timer_unit = BL_TIMER_INSTRUCTIONS_SCALED;
    port.reset_cause = fault ? BL_RESET_FAULT : BL_RESET_UNKNOWN; /* these machines have no register of it */
    port.boot_count = boot.boots;
    port.table_bits = 8;
    port.ternary_packing = BL_PACKING_BITS;
    port.simulated = true; /* these machines exist in emulators only */
}

int main(void)
{
    stack_paint(NULL);
    board_start();
    fill_port();
    uart16550_start();
    uart16550_interrupts_on();
    bl_server_init(&server, &port);
    for (;;) {
        if (!bl_server_poll(&server)) {
            uart16550_wait();
        }
    }
}

#endif /* __has_include("uart16550_board.h") */
