/* The firmware of every STM32 port: fills in a bl_port and serves. A port brings stm32_board.h and clock.c. */
#include <stdint.h>

/* Every port compiles this folder; this file is for those that bring the header below. */
#if __has_include("stm32_board.h")

#include "bl_boot.h"
#include "bl_pixel_table.h"
#include "bl_server.h"
#include "bl_stack.h"
#include "cortex_m.h"
#include "identity.h"
#include "stm32_board.h"
#include "stm32_clock.h"
#include "stm32_usart.h"

#define RCC_CR CORTEX_M_REGISTER(STM32_RCC_BASE)
#define RCC_CSR CORTEX_M_REGISTER(STM32_RCC_BASE + STM32_RCC_CSR_OFFSET)

/* RM0090 7.3.1 and 7.3.21, RM0008 7.3.1 and 7.3.10. BORRSTF is reserved on F1. */
static const uint32_t CR_HSIRDY = 1u << 1;
static const uint32_t CSR_RMVF = 1u << 24, CSR_BORRSTF = 1u << 25, CSR_PINRSTF = 1u << 26, CSR_PORRSTF = 1u << 27,
                      CSR_SFTRSTF = 1u << 28, CSR_IWDGRSTF = 1u << 29, CSR_WWDGRSTF = 1u << 30;

extern const cortex_m_vector cortex_m_vectors[];
__attribute__((section(".vectors"), used)) const cortex_m_vector cortex_m_vectors[] = {
    CORTEX_M_SYSTEM_VECTORS,
    [16 + STM32_USART_INTERRUPT] = stm32_usart_interrupt, /* no other is enabled */
};

/* Bytes of arena to use at most. `qemu://` writes another number here, so that the compiler must not know this one. */
extern const uint32_t bl_port_arena_cap;
__attribute__((used)) const uint32_t bl_port_arena_cap = 0xFFFFFFFFu;

static bl_boot_record boot __attribute__((section(".noinit")));
static uint8_t receive_buffer[BL_FRAME_BYTES(BOARD_BODY_BYTES)];
static uint8_t send_buffer[BL_FRAME_BYTES(BOARD_SEND_BODY_BYTES)];
#if BOARD_CODE_TABLES
static uint8_t code_tables[BL_CODE_TABLES_BYTES];
#endif
static bl_server server;
static bl_port port;

void cortex_m_last_words(const uint8_t *text, size_t length)
{
    bl_boot_note_fault(&boot);
    stm32_usart_send_last(text, length);
}

static uint8_t reset_cause(bool fault)
{
    uint32_t flags = RCC_CSR;

    RCC_CSR = flags | CSR_RMVF;
    if (fault) {
        return BL_RESET_FAULT;
    }
    if (flags & (CSR_IWDGRSTF | CSR_WWDGRSTF)) {
        return BL_RESET_WATCHDOG;
    }
    if (flags & CSR_SFTRSTF) {
        return BL_RESET_SOFTWARE;
    }
    if (flags & CSR_PORRSTF) {
        return BL_RESET_POWER_ON; /* sets the flags of brown-out and pin too */
    }
    if (flags & CSR_BORRSTF) {
        return BL_RESET_BROWNOUT;
    }
    return flags & CSR_PINRSTF ? BL_RESET_PIN : BL_RESET_UNKNOWN;
}

/* Everything below the stack pointer: an interrupt that comes meanwhile is over before the paint goes on. */
static void stack_paint(void *context)
{
    const uint8_t *sp;

    (void)context;
    __asm__ volatile("mov %0, sp" : "=r"(sp));
    bl_stack_paint(__bl_stack_low, sp);
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
    /* Every chip starts on its internal oscillator; where that is not ready there is no chip, but an emulator without a
     * model of the clocks, whose processor runs at what SYST_CALIB says whatever was set above. */
    bool emulated = !(RCC_CR & CR_HSIRDY);
    bool fault = bl_boot_begin(&boot);
    stm32_clock clock = stm32_clock_start();
    bool cycles;

    if (emulated && cortex_m_calibrated_hz() != 0) {
        port.clock_hz = cortex_m_calibrated_hz();
    } else {
        port.clock_hz = clock.core_hz;
    }
    cycles = cortex_m_ticks_start(port.clock_hz);
    stm32_pins_start();
    stm32_usart_start(clock.usart_hz, BL_BAUD);
    port.read = stm32_usart_read;
    port.write = stm32_usart_write;
    port.flush = stm32_usart_flush;
    port.overruns = stm32_usart_overruns;
    port.nearest_baud = stm32_usart_nearest_baud;
    port.set_baud = stm32_usart_set_baud;
    port.milliseconds = cortex_m_milliseconds;
    port.boot_baud = BL_BAUD;
    port.max_baud = stm32_usart_max_baud();
    port.ticks = cortex_m_ticks;
    port.stack_peak = stack_peak;
    port.stack_paint = stack_paint;
    port.arena = __bl_arena_start;
    port.arena_bytes = arena_bytes();
    port.receive_buffer = receive_buffer;
    port.send_buffer = send_buffer;
    port.body_bytes = BOARD_BODY_BYTES;
    port.send_body_bytes = BOARD_SEND_BODY_BYTES;
#if BOARD_CODE_TABLES
    port.code_tables = code_tables;
#endif
    port.window_bytes = BOARD_RING_BYTES - 1u;
    port.static_bytes = (uint32_t)(__bl_static_end - __bl_static_start);
    port.pixel_table = bl_pixel_table;
    port.firmware_version = bl_firmware_version;
    port.firmware_hash = bl_firmware_hash;
    port.board = BOARD_NAME;
    port.isa = BOARD_ISA;
    port.ticks_per_second = port.clock_hz;
    port.timer_unit = emulated && !cycles ? BL_TIMER_INSTRUCTIONS_SCALED : BL_TIMER_CYCLES;
    port.reset_cause = reset_cause(fault);
    port.boot_count = boot.boots;
    port.table_bits = BOARD_TABLE_BITS;
    port.ternary_packing = BL_PACKING_BITS;
    port.simulated = emulated;
}

int main(void)
{
    stack_paint(NULL);
    fill_port();
    bl_server_init(&server, &port);
    for (;;) {
        if (!bl_server_poll(&server)) {
            stm32_usart_wait();
        }
    }
}

#endif /* __has_include("stm32_board.h") */
