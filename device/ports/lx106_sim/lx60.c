/* QEMU's board lx60 (hw/xtensa/xtfpga.c) with an LX106 (target/xtensa/core-lx106/core-isa.h): start-up, interrupts, time,
 * faults. */
#include <string.h>

#include "bl_server.h"
#include "bl_text.h"
#include "lx106.h"
#include "uart16550.h"
#include "uart16550_board.h"
#include "uart16550_main.h"

/* Registers of the board's FPGA. */
#define FPGA_CLOCK_HZ (*(const volatile uint32_t *)0xFD020004u)
#define FPGA_RESET (*(volatile uint32_t *)0xFD020010u)

static const uint32_t FPGA_RESET_KEY = 0xDEAD;

/* Bits of INTERRUPT and INTENABLE: the board's first interrupt is the core's 0, its only timer's has number 6. */
static const uint32_t UART_INTERRUPT = 1u << 0, TIMER_INTERRUPT = 1u << 6;

static const uint32_t HALF_TURN = (uint32_t)1 << 31;

extern uint8_t __bl_data_load[], __bl_data_start[], __bl_data_end[], __bl_bss_start[], __bl_bss_end[];

/* All three are called from start.S alone. */
__attribute__((used)) _Noreturn void lx106_start(void);
__attribute__((used)) void lx106_interrupt(void);
__attribute__((used)) _Noreturn void lx106_fault(uint32_t pc, uint32_t cause, uint32_t address, uint32_t sp);

static _Noreturn void reset(void)
{
    for (;;) {
        FPGA_RESET = FPGA_RESET_KEY;
    }
}

void lx106_start(void)
{
    memcpy(__bl_data_start, __bl_data_load, (size_t)(__bl_data_end - __bl_data_start));
    memset(__bl_bss_start, 0, (size_t)(__bl_bss_end - __bl_bss_start));
    (void)main();
    reset();
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static uint64_t ticks;

uint32_t lx106_clock_hz(void)
{
    return FPGA_CLOCK_HZ;
}

/* CCOUNT in 64 bits, with interrupts off. It turns over every 2^32 ticks. So that no turn is missed the timer asks too,
 * half a turn after whoever asked last: if this falls into an image, then on the same instruction in every run. Setting
 * the timer takes back its interrupt. */
static uint64_t ticks_now(void)
{
    uint32_t count;

    LX106_READ("ccount", count);
    LX106_WRITE("ccompare0", count + HALF_TURN);
    return bl_server_extend_ticks(&ticks, count, 32);
}

uint64_t board_ticks(void *context)
{
    uint64_t now;

    (void)context;
    lx106_interrupts_off();
    now = ticks_now();
    lx106_interrupts_on();
    return now;
}

/* --- interrupts -------------------------------------------------------------------------------------------------- */

void board_start(void)
{
    (void)ticks_now();
    LX106_WRITE("intenable", UART_INTERRUPT | TIMER_INTERRUPT);
}

void lx106_interrupt(void)
{
    uint32_t pending;

    LX106_READ("interrupt", pending);
    if (pending & UART_INTERRUPT) {
        uart16550_interrupt();
    }
    if (pending & TIMER_INTERRUPT) {
        (void)ticks_now();
    }
}

/* --- faults ------------------------------------------------------------------------------------------------------ */

/* One line, between zero bytes, so that the host takes it for no part of a frame. */
void lx106_fault(uint32_t pc, uint32_t cause, uint32_t address, uint32_t sp)
{
    uint8_t text[96];
    uint8_t *at = text;

    *at++ = 0;
    at = bl_text_put_word(at, "bitloop: exception exccause=", cause);
    at = bl_text_put_word(at, " epc1=", pc);
    at = bl_text_put_word(at, " excvaddr=", address);
    at = bl_text_put_word(at, " sp=", sp);
    at = bl_text_put(at, "\r\n");
    *at++ = 0;
    uart16550_last_words(text, (size_t)(at - text));
    reset();
}
