/* Between uart16550_main.c, the firmware of every port whose line is a 16550, and such a port. */
#ifndef UART16550_MAIN_H
#define UART16550_MAIN_H

#include <stddef.h>
#include <stdint.h>

/* Placed by the linker script. */
extern uint8_t __bl_stack_low[], __bl_stack_top[];
extern uint8_t __bl_static_start[], __bl_static_end[];
extern uint8_t __bl_arena_start[], __bl_arena_end[];

/* --- the port's -------------------------------------------------------------------------------------------------- */

/* Called first, with interrupts off: memory protection, timer, and the controller of the UART's interrupt. */
void board_start(void);

/* For bl_port, in ticks of BOARD_TICKS_PER_SECOND. */
uint64_t board_ticks(void *context);

/* --- the port calls ---------------------------------------------------------------------------------------------- */

/* From start-up code, when .data and .bss are filled. */
int main(void);

/* From a fault, with interrupts off, on a stack that has room: note that this boot ends with a fault, and send `text`
 * within a bounded time. */
void uart16550_last_words(const uint8_t *text, size_t length);

#endif /* UART16550_MAIN_H */
