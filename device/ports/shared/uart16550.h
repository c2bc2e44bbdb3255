/* The UART 16550 (National Semiconductor, PC16550D), one a port: received bytes come by interrupt into a ring, sent ones
 * are polled while the interrupt goes on receiving. The port brings uart16550_board.h, with
 *
 *   UART16550_REGISTER(index)    register 0 to 7, a volatile lvalue of the width and at the spacing that the bus has
 *   UART16550_DIVISOR            clock / (16 * baud)
 *   uart16550_interrupts_off()   no interrupt is taken from here on; those that come stay pending
 *   uart16550_interrupts_on()
 *   uart16550_sleep()            with interrupts off: sleep until one is pending, be it already; then they are on
 *   BOARD_RING_BYTES             up to 65535
 *
 * and for uart16550_main.c BOARD_NAME, BOARD_ISA, BOARD_BODY_BYTES, BOARD_TICKS_PER_SECOND and
 *
 *   board_stack_pointer()        that of who calls
 *
 * The UART's interrupt must call uart16550_interrupt. */
#ifndef UART16550_H
#define UART16550_H

#include <stddef.h>
#include <stdint.h>

/* 8N1, FIFOs on, the UART's own receive interrupt on; on its way through the controller it is the port's. */
void uart16550_start(void);

void uart16550_interrupt(void);

/* For bl_port; contexts are not used. */
size_t uart16550_read(void *context, uint8_t *data, size_t capacity);
void uart16550_write(void *context, const uint8_t *data, size_t length);
void uart16550_flush(void *context);
uint32_t uart16550_overruns(void *context);

/* Sleep until there is something to read. Another interrupt may end the sleep too. */
void uart16550_wait(void);

/* Send `data` within a bounded time, whatever state the UART is in; it may never have been started. */
void uart16550_send_last(const uint8_t *data, size_t length);

#endif /* UART16550_H */
