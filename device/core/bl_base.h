/* What every file of the core needs: the float guard, constant tables, little-endian bytes, bits of a float. */
#ifndef BL_BASE_H
#define BL_BASE_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bl_spec.h"

/* docs/arithmetic.md rounds every product and every sum on its own. Contraction is switched off by flag
 * (-ffp-contract=off) and here, because Arduino builds with flags of its own; GCC ignores the standard's pragma. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#if defined(__FAST_MATH__)
#error "bitloop needs IEEE 754 arithmetic: build without -ffast-math"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bitloop reads binary32 weights in place: the target must be little-endian"
#endif

#if defined(__cplusplus)
#define BL_STATIC_ASSERT(condition, text) static_assert(condition, text)
#define BL_RESTRICT __restrict
#else
#define BL_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#define BL_RESTRICT restrict
#endif

/* A function whose frame is not to become its caller's: one beside the run of the layers, where the stack is deepest. */
#if defined(__GNUC__)
#define BL_NOINLINE __attribute__((noinline))
#else
#define BL_NOINLINE
#endif

/* GCC before 7 hides the standard's name from C++11. */
#if !defined(FLT_EVAL_METHOD) && defined(__FLT_EVAL_METHOD__)
#define FLT_EVAL_METHOD __FLT_EVAL_METHOD__
#endif
BL_STATIC_ASSERT(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in binary32");
BL_STATIC_ASSERT(FLT_RADIX == 2 && FLT_MANT_DIG == 24 && sizeof(float) == 4, "float must be binary32");

/* Constant tables and texts: `static const uint32_t table[] BL_CONST = {...}`, read with bl_const_u8 and bl_const_u32.
 * On AVR a plain const lives in RAM; there they stay in flash. */
#if defined(__AVR__)
#include <avr/pgmspace.h>
#define BL_CONST PROGMEM
#define bl_const_u8(pointer) pgm_read_byte(pointer)
#define bl_const_u32(pointer) pgm_read_dword(pointer)
#else
#define BL_CONST
#define bl_const_u8(pointer) (*(pointer))
#define bl_const_u32(pointer) (*(pointer))
#endif

/* Little-endian integers at any address; no unaligned access. */
static inline uint16_t bl_load_u16(const uint8_t *bytes)
{
    return (uint16_t)((unsigned)bytes[0] | ((unsigned)bytes[1] << 8));
}

static inline uint32_t bl_load_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) | ((uint32_t)bytes[3] << 24);
}

static inline void bl_store_u16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static inline void bl_store_u32(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
    bytes[2] = (uint8_t)(value >> 16);
    bytes[3] = (uint8_t)(value >> 24);
}

/* The bits of a binary32 and back. */
static inline uint32_t bl_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bl_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The bits as they leave the device: any NaN becomes BL_CANONICAL_NAN. */
static inline uint32_t bl_float_emitted(float value)
{
    uint32_t bits = bl_float_bits(value);
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? BL_CANONICAL_NAN : bits;
}

static inline uint32_t bl_align4(uint32_t value)
{
    return (value + 3u) & ~(uint32_t)3u;
}

#endif /* BL_BASE_H */
