/* QEMU's board lx60 with an LX106: what uart16550.c and uart16550_main.c want of it. */
#ifndef UART16550_BOARD_H
#define UART16550_BOARD_H

#include <stdint.h>

#include "lx106.h"

#define BOARD_NAME "lx106"
#define BOARD_ISA "Xtensa LX106, call0"
#define BOARD_BODY_BYTES 1024
#define BOARD_RING_BYTES 4096
#define BOARD_TICKS_PER_SECOND lx106_clock_hz()

/* Registers lie in words of their own. */
#define UART16550_REGISTER(index) (*(volatile uint8_t *)(0xFD050020u + 4u * (index)))

/* No bit takes time on this line; of the rate only the timeout of the receive FIFO is left, four characters long. So the
 * fastest one: 115,200 baud. */
#define UART16550_DIVISOR 1u

static inline void uart16550_interrupts_off(void)
{
    lx106_interrupts_off();
}

static inline void uart16550_interrupts_on(void)
{
    lx106_interrupts_on();
}

static inline void uart16550_sleep(void)
{
    lx106_wait_for_interrupt();
}

static inline const uint8_t *board_stack_pointer(void)
{
    const uint8_t *sp;

    __asm__ volatile("mov %0, sp" : "=a"(sp));
    return sp;
}

#endif /* UART16550_BOARD_H */
