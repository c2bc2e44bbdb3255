/* QEMU's machine "virt" (hw/riscv/virt.c): interrupts, memory protection, time, faults. */
#include "bl_base.h"
#include "bl_text.h"
#include "riscv.h"
#include "uart16550.h"
#include "uart16550_board.h"
#include "uart16550_main.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* The interrupt controller (RISC-V PLIC Specification 1.0.0), context 0: machine mode of hart 0. */
#define PLIC_PRIORITY(source) REGISTER(0x0C000000u + 4u * (source))
#define PLIC_ENABLE REGISTER(0x0C002000u)
#define PLIC_THRESHOLD REGISTER(0x0C200000u)
#define PLIC_CLAIM REGISTER(0x0C200004u)

#define TEST_FINISHER REGISTER(0x00100000u) /* hw/misc/sifive_test.c */

enum { UART0_SOURCE = 10, FINISHER_RESET = 0x7777 };

static const uint32_t RAM_START = 0x80000000u, RAM_BYTES = 128u << 20;

/* Both are called from start.S alone. */
void riscv_external_interrupt(void);
_Noreturn void riscv_fault(uint32_t sp);

/* Up to the stack code and constants, which nobody writes; from there on data, which nobody runs. The first region that
 * holds an address counts. */
static void protect_memory(void)
{
    const uint32_t code_bytes = (uint32_t)(uintptr_t)__bl_stack_low - RAM_START;
    const uint32_t code = RISCV_PMP_LOCKED | RISCV_PMP_NAPOT | RISCV_PMP_R | RISCV_PMP_X;
    const uint32_t data = RISCV_PMP_LOCKED | RISCV_PMP_NAPOT | RISCV_PMP_R | RISCV_PMP_W;

    RISCV_WRITE(pmpaddr0, RISCV_PMP_REGION(RAM_START, code_bytes));
    RISCV_WRITE(pmpaddr1, RISCV_PMP_REGION(RAM_START, RAM_BYTES));
    RISCV_WRITE(pmpcfg0, code | data << 8);
}

void board_start(void)
{
    protect_memory();
    PLIC_PRIORITY(UART0_SOURCE) = 1;
    PLIC_ENABLE = 1u << UART0_SOURCE;
    PLIC_THRESHOLD = 0;
    RISCV_SET(mie, RISCV_MIE_MEIE);

    RISCV_WRITE(mcountinhibit, 0); /* all counters count */
}

__attribute__((interrupt("machine"))) void riscv_external_interrupt(void)
{
    uint32_t source = PLIC_CLAIM;

    if (source == UART0_SOURCE) {
        uart16550_interrupt();
    }
    PLIC_CLAIM = source;
}

/* With -icount QEMU's minstret counts the nanoseconds of virtual time, of which an instruction takes 2^shift. */
uint64_t board_ticks(void *context)
{
    uint32_t high, low, again;

    (void)context;
    do {
        RISCV_READ(minstreth, high);
        RISCV_READ(minstret, low);
        RISCV_READ(minstreth, again);
    } while (high != again); /* it turned over between the two halves */
    return (uint64_t)high << 32 | low;
}

_Noreturn void riscv_fault(uint32_t sp)
{
    uint8_t text[96];
    uint8_t *at = text;
    uint32_t cause, pc, value;

    RISCV_READ(mcause, cause);
    RISCV_READ(mepc, pc);
    RISCV_READ(mtval, value);
    *at++ = 0;
    at = bl_text_put_word(at, "bitloop: trap mcause=", cause);
    at = bl_text_put_word(at, " mepc=", pc);
    at = bl_text_put_word(at, " mtval=", value);
    at = bl_text_put_word(at, " sp=", sp);
    at = bl_text_put(at, "\r\n");
    *at++ = 0;
    uart16550_last_words(text, (size_t)(at - text));
    TEST_FINISHER = FINISHER_RESET;
    for (;;) {
    }
}
