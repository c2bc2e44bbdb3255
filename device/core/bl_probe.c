#include "bl_probe.h"

/* Operands are volatile so that the chip computes, not the compiler. */
void bl_probe_run(uint32_t results[BL_PROBE_COUNT])
{
    volatile float a = 1.0f + 0x1p-12f;
    volatile float b = -(1.0f + 0x1p-11f);
    volatile float one = 1.0f;
    volatile float zero = 0.0f;
    volatile float least_normal = 0x1p-126f;
    volatile float least_subnormal = 0x1p-149f;
    volatile float half = 0.5f;
    volatile float half_ulp = 0x1p-24f;
    volatile float next_to_one = 1.0f + 0x1p-23f;
    volatile float greatest = FLT_MAX;
    volatile uint32_t integer = 16777217u;
    volatile uint8_t pixel = 77;
    float factor;
    unsigned i = 0;

    /* Read once and used in one expression: what a compiler that contracts would fuse. */
    factor = a;
    results[i++] = bl_float_bits(factor * factor + b);
    results[i++] = bl_float_bits(least_normal * half);
    results[i++] = bl_float_bits(least_subnormal + least_subnormal);
    results[i++] = bl_float_bits(one + half_ulp);
    results[i++] = bl_float_bits(next_to_one + half_ulp);
    results[i++] = bl_float_bits(-one * zero);
    results[i++] = bl_float_bits(zero + -zero);
    results[i++] = bl_float_bits(one / (one + one + one));
    results[i++] = bl_float_bits((float)integer);
    results[i++] = bl_float_bits(greatest + greatest);
    results[i++] = bl_float_bits((float)pixel / 255.0f);
}
