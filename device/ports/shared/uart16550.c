#include <stdint.h>

/* Every port compiles this folder; this file is for those that bring the header below. */
#if __has_include("uart16550_board.h")

#include "uart16550.h"

#include "bl_ring.h"
#include "uart16550_board.h"

/* PC16550D, table II. The divisor takes the place of the first two while LCR_DLAB is set. */
#define UART_RBR UART16550_REGISTER(0) /* to read */
#define UART_THR UART16550_REGISTER(0) /* to write */
#define UART_IER UART16550_REGISTER(1)
#define UART_FCR UART16550_REGISTER(2)
#define UART_LCR UART16550_REGISTER(3)
#define UART_LSR UART16550_REGISTER(5)
#define UART_DLL UART16550_REGISTER(0)
#define UART_DLM UART16550_REGISTER(1)

enum {
    IER_ERBFI = 1 << 0, /* data, at the trigger level or after four characters without more */
    FCR_ENABLE = 1 << 0,
    FCR_CLEAR = 3 << 1,
    FCR_TRIGGER_14 = 3 << 6,
    LCR_8N1 = 3,
    LCR_DLAB = 1 << 7,
    LSR_DR = 1 << 0,
    LSR_OE = 1 << 1,
    LSR_THRE = 1 << 5,
    LSR_TEMT = 1 << 6,
    SEND_FIFO_BYTES = 16
};

/* Reads of LSR until the transmitter counts as stuck: some times what 16 characters take at 115,200 baud. */
enum { SEND_WAIT_READS = 1000000 };

static uint8_t ring_bytes[BOARD_RING_BYTES];
static bl_ring ring;

/* 8N1 at the port's rate, empty FIFOs, no interrupt. */
static void configure(void)
{
    UART_LCR = LCR_8N1; /* IER is the divisor's upper half while DLAB is set */
    UART_IER = 0;
    UART_LCR = LCR_8N1 | LCR_DLAB;
    UART_DLL = UART16550_DIVISOR & 0xFFu;
    UART_DLM = UART16550_DIVISOR >> 8;
    UART_LCR = LCR_8N1;
    UART_FCR = FCR_ENABLE | FCR_CLEAR | FCR_TRIGGER_14;
}

void uart16550_start(void)
{
    bl_ring_init(&ring, ring_bytes, sizeof ring_bytes);
    configure();
    UART_IER = IER_ERBFI;
}

void uart16550_interrupt(void)
{
    unsigned status;

    do {
        status = UART_LSR;
        if (status & LSR_OE) {
            ring.lost++; /* a byte that found the FIFO full; reading LSR has cleared the flag */
        }
        if (status & LSR_DR) {
            bl_ring_put(&ring, (uint8_t)UART_RBR);
        }
    } while (status & LSR_DR);
}

size_t uart16550_read(void *context, uint8_t *data, size_t capacity)
{
    (void)context;
    return bl_ring_get(&ring, data, capacity);
}

/* One that is stuck loses bytes, which the host repairs, instead of holding the firmware for ever. */
static void wait_for(unsigned flag)
{
    for (unsigned long i = 0; i < SEND_WAIT_READS && !(UART_LSR & flag); i++) {
    }
}

void uart16550_write(void *context, const uint8_t *data, size_t length)
{
    (void)context;
    for (size_t i = 0; i < length; i++) {
        if (i % SEND_FIFO_BYTES == 0) {
            wait_for(LSR_THRE); /* the whole FIFO is empty */
        }
        UART_THR = data[i];
    }
}

void uart16550_flush(void *context)
{
    (void)context;
    wait_for(LSR_TEMT);
}

uint32_t uart16550_overruns(void *context)
{
    (void)context;
    return ring.lost;
}

void uart16550_wait(void)
{
    uart16550_interrupts_off();
    if (bl_ring_empty(&ring)) {
        uart16550_sleep();
    } else {
        uart16550_interrupts_on();
    }
}

void uart16550_send_last(const uint8_t *data, size_t length)
{
    UART_LCR = LCR_8N1; /* LSR can be read whatever LCR says; what is on its way leaves first */
    wait_for(LSR_TEMT);
    configure();
    uart16550_write(NULL, data, length);
    uart16550_flush(NULL);
}

#endif /* __has_include("uart16550_board.h") */
