/* QEMU's machine "virt" (hw/riscv/virt.c), as uart16550.c and uart16550_main.c want it. */
#ifndef UART16550_BOARD_H
#define UART16550_BOARD_H

#include <stdint.h>

#include "riscv.h"

#define BOARD_NAME "rv32imc"
#define BOARD_ISA "RV32IMC"
#define BOARD_BODY_BYTES 1024
#define BOARD_RING_BYTES 4096
#define BOARD_TICKS_PER_SECOND 1000000000u

#define UART16550_REGISTER(index) (*(volatile uint8_t *)(0x10000000u + (index)))

/* Bits take no time on this line. Only the receive FIFO's timeout, four characters, follows from the rate: the highest
 * there is, 399,193 baud, makes it 0.1 ms. */
#define UART16550_DIVISOR 1u

static inline void uart16550_interrupts_off(void)
{
    RISCV_CLEAR(mstatus, RISCV_MSTATUS_MIE);
}

static inline void uart16550_interrupts_on(void)
{
    RISCV_SET(mstatus, RISCV_MSTATUS_MIE);
}

static inline void uart16550_sleep(void)
{
    __asm__ volatile("wfi" ::: "memory"); /* ends for what is pending and not taken too (3.2.3) */
    uart16550_interrupts_on();
}

static inline const uint8_t *board_stack_pointer(void)
{
    const uint8_t *sp;

    __asm__ volatile("mv %0, sp" : "=r"(sp));
    return sp;
}

#endif /* UART16550_BOARD_H */
