/* The peak of a stack that grows downwards, from paint that is gone. */
#ifndef BL_STACK_H
#define BL_STACK_H

#include <stdint.h>

#define BL_STACK_PAINT 0xC5u

/* Paint [low, end). `end` must lie below everything in use: below the stack pointer of whoever calls, and far enough for
 * an interrupt that comes meanwhile to have been painted over at worst. Written through volatile, so that no library
 * function with a stack of its own does it. */
static inline void bl_stack_paint(uint8_t *low, const uint8_t *end)
{
    for (volatile uint8_t *at = low; at < end; at++) {
        *at = BL_STACK_PAINT;
    }
}

/* Bytes between the lowest byte that lost its paint and `top`. */
static inline uint32_t bl_stack_peak(const uint8_t *low, const uint8_t *top)
{
    const volatile uint8_t *at = low;

    while (at < top && *at == BL_STACK_PAINT) {
        at++;
    }
    return (uint32_t)(top - (const uint8_t *)at);
}

#endif /* BL_STACK_H */
