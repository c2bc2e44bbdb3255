#include <stdint.h>

/* Every port compiles this folder; this file is for those that bring the header below. */
#if __has_include("stm32_board.h")

#include "stm32_usart.h"

#include "bl_ring.h"
#include "bl_spec.h"
#include "stm32_board.h"
#include "cortex_m.h"

#define USART_SR CORTEX_M_REGISTER(STM32_USART_BASE + 0x00u)
#define USART_DR CORTEX_M_REGISTER(STM32_USART_BASE + 0x04u)
#define USART_BRR CORTEX_M_REGISTER(STM32_USART_BASE + 0x08u)
#define USART_CR1 CORTEX_M_REGISTER(STM32_USART_BASE + 0x0Cu)

static const uint32_t SR_ORE = 1u << 3, SR_RXNE = 1u << 5, SR_TC = 1u << 6, SR_TXE = 1u << 7;
static const uint32_t CR1_RE = 1u << 2, CR1_TE = 1u << 3, CR1_RXNEIE = 1u << 5, CR1_UE = 1u << 13;

/* Reads of SR that take longer than a character at the slowest rate of any use. */
enum { LAST_WAIT_READS = 200000 };

/* 16 samples a bit (OVER8 is 0): BRR, the divisor in sixteenths, is clock / baud, and one sample takes a cycle at least.
 * Above 2,000,000 baud not even the fastest of these chips would have 100 cycles left for a byte. */
enum { LEAST_DIVISOR = 16, MOST_DIVISOR = 0xFFFF, MOST_BAUD = 2000000 };

static uint8_t ring_bytes[BOARD_RING_BYTES];
static bl_ring ring;
static uint32_t bus_hz;

static uint32_t divisor_of(uint32_t baud)
{
    return (bus_hz + baud / 2u) / baud;
}

void stm32_usart_start(uint32_t clock_hz, uint32_t baud)
{
    bus_hz = clock_hz;
    bl_ring_init(&ring, ring_bytes, sizeof ring_bytes);
    USART_BRR = divisor_of(baud);
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    cortex_m_interrupt_enable(STM32_USART_INTERRUPT);
}

void stm32_usart_interrupt(void)
{
    uint32_t status = USART_SR;

    if (status & (SR_RXNE | SR_ORE)) {
        uint8_t byte = (uint8_t)USART_DR; /* after SR: this clears both flags */
        if (status & SR_RXNE) {
            bl_ring_put(&ring, byte);
        }
        if (status & SR_ORE) {
            ring.lost++; /* one that came while DR was full; `byte` is the older one and whole */
        }
    }
}

size_t stm32_usart_read(void *context, uint8_t *data, size_t capacity)
{
    (void)context;
    return bl_ring_get(&ring, data, capacity);
}

void stm32_usart_write(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    for (size_t i = 0; i < length; i++) {
        while (!(USART_SR & SR_TXE)) {
        }
        USART_DR = data[i];
    }
}

void stm32_usart_flush(void *context)
{
    (void)context;
    while (!(USART_SR & SR_TC)) {
    }
}

uint32_t stm32_usart_overruns(void *context)
{
    (void)context;
    return ring.lost;
}

uint32_t stm32_usart_max_baud(void)
{
    uint32_t most = bus_hz / LEAST_DIVISOR;

    return most < MOST_BAUD ? most : MOST_BAUD;
}

uint32_t stm32_usart_nearest_baud(void *context, uint32_t baud)
{
    uint32_t divisor, real, off;

    (void)context;
    if (baud == 0 || baud > stm32_usart_max_baud()) {
        return 0;
    }
    divisor = divisor_of(baud);
    if (divisor > MOST_DIVISOR) {
        return 0;
    }
    real = (bus_hz + divisor / 2u) / divisor;
    off = real > baud ? real - baud : baud - real;
    return off * 1000u <= baud * BL_MAX_BAUD_ERROR_PERMILLE ? real : 0; /* both below 2^32: baud is 2,000,000 at most */
}

/* Not during a character (RM0008 27.3.4): TC says that the last has left. */
void stm32_usart_set_baud(void *context, uint32_t baud)
{
    stm32_usart_flush(context);
    USART_BRR = divisor_of(baud);
}

void stm32_usart_wait(void)
{
    cortex_m_interrupts_off();
    if (bl_ring_empty(&ring)) {
        cortex_m_sleep();
    }
    cortex_m_interrupts_on();
}

static void wait_last(uint32_t flag)
{
    for (unsigned i = 0; i < LAST_WAIT_READS && !(USART_SR & flag); i++) {
    }
}

void stm32_usart_send_last(const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        wait_last(SR_TXE);
        USART_DR = data[i];
    }
    wait_last(SR_TC);
}

#endif /* __has_include("stm32_board.h") */
