/* What a port's clock.c tells: which clock really runs. Bits that F1 and F4 have in common: RM0008 7.3, RM0090 7.3. */
#ifndef STM32_CLOCK_H
#define STM32_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t core_hz;
    uint32_t usart_hz; /* of the bus that the board's USART is on */
} stm32_clock;

/* Bring the chip to its full clock. Each wait is bounded: what does not come is done without, down to the internal
 * oscillator that every reset begins with. Switches on the clocks of the board's USART and its port. */
stm32_clock stm32_clock_start(void);

/* Set the pins of the board's USART. */
void stm32_pins_start(void);

/* Reads until an oscillator, the PLL or a switch counts as dead: 50 ms at 16 MHz; crystals take up to 10 ms. */
enum { STM32_WAIT_READS = 100000 };

static inline bool stm32_wait(const volatile uint32_t *status, uint32_t mask, uint32_t value)
{
    for (unsigned i = 0; i < STM32_WAIT_READS; i++) {
        if ((*status & mask) == value) {
            return true;
        }
    }
    return false;
}

#endif /* STM32_CLOCK_H */
