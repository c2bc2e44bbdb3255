#include "soft_integer.h"

typedef struct {
    uint32_t quotient;
    uint32_t remainder;
} division;

/* Bit by bit, from where the divisor's leading bit stands below the dividend's. */
static inline division divide(uint32_t a, uint32_t b)
{
    division d = {0, a};
    uint32_t bit;

    if (b == 0) {
        __builtin_trap();
    }
    if (a < b) {
        return d;
    }
    bit = (uint32_t)__builtin_clz(b) - (uint32_t)__builtin_clz(a);
    b <<= bit;
    for (;;) {
        d.quotient <<= 1;
        if (d.remainder >= b) {
            d.remainder -= b;
            d.quotient |= 1u;
        }
        if (bit == 0) {
            return d;
        }
        bit--;
        b >>= 1;
    }
}

static inline uint32_t magnitude(int32_t a)
{
    return a < 0 ? 0u - (uint32_t)a : (uint32_t)a;
}

uint32_t __udivsi3(uint32_t a, uint32_t b)
{
    return divide(a, b).quotient;
}

uint32_t __umodsi3(uint32_t a, uint32_t b)
{
    return divide(a, b).remainder;
}

int32_t __divsi3(int32_t a, int32_t b)
{
    uint32_t quotient = divide(magnitude(a), magnitude(b)).quotient;

    return (int32_t)((a ^ b) < 0 ? 0u - quotient : quotient);
}

int32_t __modsi3(int32_t a, int32_t b)
{
    uint32_t remainder = divide(magnitude(a), magnitude(b)).remainder;

    return (int32_t)(a < 0 ? 0u - remainder : remainder);
}

/* The whole product of two words, in halves of 16 bits. */
static inline uint64_t multiply_words(uint32_t a, uint32_t b)
{
    uint32_t low = (a & 0xFFFFu) * (b & 0xFFFFu);
    uint32_t middle = (a >> 16) * (b & 0xFFFFu) + (low >> 16); /* at most 2^32 - 2^16 */
    uint32_t middle_too = (a & 0xFFFFu) * (b >> 16) + (middle & 0xFFFFu);
    uint32_t high = (a >> 16) * (b >> 16) + (middle >> 16) + (middle_too >> 16);

    return (uint64_t)high << 32 | (middle_too << 16 | (low & 0xFFFFu));
}

uint64_t __muldi3(uint64_t a, uint64_t b)
{
    uint32_t a_low = (uint32_t)a, a_high = (uint32_t)(a >> 32);
    uint32_t b_low = (uint32_t)b, b_high = (uint32_t)(b >> 32);

    return multiply_words(a_low, b_low) + ((uint64_t)(a_low * b_high + a_high * b_low) << 32);
}
