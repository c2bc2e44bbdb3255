/* A ring of received bytes between one interrupt that puts and one main program that gets. */
#ifndef BL_RING_H
#define BL_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Any size from 2 to 65535; one byte of it stays empty. */
typedef struct {
    uint8_t *bytes;
    uint16_t size;
    volatile uint16_t head; /* where the interrupt puts; only it writes this */
    volatile uint16_t tail; /* where the main program gets; only it writes this */
    volatile uint32_t lost; /* bytes that found the ring full */
} bl_ring;

static inline void bl_ring_init(bl_ring *ring, uint8_t *bytes, uint16_t size)
{
    ring->bytes = bytes;
    ring->size = size;
    ring->head = 0;
    ring->tail = 0;
    ring->lost = 0;
}

/* The place behind `at`. Compared and not masked: a ring of two frames need not grow to a power of two. */
static inline uint16_t bl_ring_behind(const bl_ring *ring, uint16_t at)
{
    return at + 1u == ring->size ? 0u : (uint16_t)(at + 1u);
}

/* From the interrupt: keep a byte, or count it as lost. */
static inline void bl_ring_put(bl_ring *ring, uint8_t byte)
{
    uint16_t head = ring->head;
    uint16_t next = bl_ring_behind(ring, head);

    if (next == ring->tail) {
        ring->lost++;
        return;
    }
    ring->bytes[head] = byte;
    __atomic_signal_fence(__ATOMIC_RELEASE); /* the byte before its announcement: `bytes` is not volatile */
    ring->head = next;
}

/* Nothing to get? On chips where 16 bits are not read at once (AVR) ask with interrupts off. */
static inline bool bl_ring_empty(const bl_ring *ring)
{
    return ring->head == ring->tail;
}

/* Get up to `capacity` bytes; returns how many. */
static inline size_t bl_ring_get(bl_ring *ring, uint8_t *data, size_t capacity)
{
    uint16_t head = ring->head;
    uint16_t tail = ring->tail;
    size_t count = 0;

    __atomic_signal_fence(__ATOMIC_ACQUIRE);
    while (count < capacity && tail != head) {
        data[count++] = ring->bytes[tail];
        tail = bl_ring_behind(ring, tail);
    }
    __atomic_signal_fence(__ATOMIC_RELEASE); /* all bytes are read before the interrupt may write over them */
    ring->tail = tail;
    return count;
}

#endif /* BL_RING_H */
