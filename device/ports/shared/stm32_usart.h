/* The USART of STM32F1 and F4, which is the same (RM0008 27.6, RM0090 30.6): received bytes come by interrupt into a
 * ring, sent ones are polled, while the interrupt goes on receiving. */
#ifndef STM32_USART_H
#define STM32_USART_H

#include <stddef.h>
#include <stdint.h>

/* Start the board's USART, whose clock and pins are on, at `baud`; `clock_hz` is that of its bus. */
void stm32_usart_start(uint32_t clock_hz, uint32_t baud);

/* For bl_port; contexts are not used. */
size_t stm32_usart_read(void *context, uint8_t *data, size_t capacity);
void stm32_usart_write(void *context, const uint8_t *data, size_t length);
void stm32_usart_flush(void *context);
uint32_t stm32_usart_overruns(void *context);
uint32_t stm32_usart_nearest_baud(void *context, uint32_t baud);
void stm32_usart_set_baud(void *context, uint32_t baud);

/* The highest rate that the USART's clock and the interrupt take. */
uint32_t stm32_usart_max_baud(void);

/* Sleep until there is something to read, or for 0.1 s. Another interrupt may end the sleep too. */
void stm32_usart_wait(void);

void stm32_usart_interrupt(void);

/* Send `data` within a bounded time, whatever state the USART is in. */
void stm32_usart_send_last(const uint8_t *data, size_t length);

#endif /* STM32_USART_H */
