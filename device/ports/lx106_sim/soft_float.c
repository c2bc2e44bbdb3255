#include "soft_float.h"

#include "bl_base.h"

/* The rare cases stand apart, so that the frequent ones save and jump as little as can be: these functions are the inner
 * loop of every layer. */
#define RARE __attribute__((noinline, cold))
#define RARELY(condition) __builtin_expect(condition, 0)

/* All work is done on the bits. A significand under way has 24 bits and GUARD_BITS below them, of which the last is
 * sticky: it is set if anything that is not zero was shifted out below it. Its leading bit then stands at LEADING. */
enum { MANTISSA_BITS = 23, GUARD_BITS = 7, BIAS = 127, TOP_EXPONENT = 255 };

static const uint32_t SIGN = 0x80000000u;
static const uint32_t INFINITE = 0x7F800000u;
static const uint32_t MANTISSA = 0x007FFFFFu;
static const uint32_t HIDDEN = 0x00800000u;
static const uint32_t LEADING = (uint32_t)1 << (MANTISSA_BITS + GUARD_BITS);

static inline uint32_t exponent_of(uint32_t a)
{
    return (a << 1) >> (MANTISSA_BITS + 1);
}

static inline bool is_nan(uint32_t a)
{
    return (a << 1) > (INFINITE << 1);
}

static inline bool is_zero(uint32_t a)
{
    return (a << 1) == 0;
}

/* Shift right by 0 to 31; what is lost leaves its mark in the last bit. */
static inline uint32_t shift_right_sticky(uint32_t a, uint32_t count)
{
    uint32_t shifted = a >> count;

    return (shifted << count) == a ? shifted : shifted | 1u;
}

/* Round and put together. `exponent` is the biased one, 1 or more; `m` has its leading bit at LEADING, or below it where
 * the exponent is 1. The leading bit adds 1 to the exponent field, as does a carry out of rounding: to infinity too. */
static inline uint32_t round_and_pack(uint32_t sign, uint32_t exponent, uint32_t m)
{
    m += ((uint32_t)1 << (GUARD_BITS - 1)) - 1u + ((m >> GUARD_BITS) & 1u);
    return (((exponent - 1u) << MANTISSA_BITS) + (m >> GUARD_BITS)) | sign;
}

/* The same for any exponent; the leading bit of `m` is at LEADING. */
static inline uint32_t finish(uint32_t sign, int32_t exponent, uint32_t m)
{
    if (RARELY((uint32_t)(exponent - 1) >= TOP_EXPONENT - 1u)) {
        if (exponent > 0) {
            return sign | INFINITE;
        }
        m = exponent > -30 ? shift_right_sticky(m, (uint32_t)(1 - exponent)) : 1u;
        exponent = 1;
    }
    return round_and_pack(sign, (uint32_t)exponent, m);
}

/* The significand of a finite number that is not zero, its leading bit at HIDDEN; subnormals get exponents of 0 and less. */
static inline uint32_t normalized(uint32_t a, int32_t *exponent)
{
    uint32_t m = a & MANTISSA;
    uint32_t shift;

    *exponent = (int32_t)exponent_of(a);
    if (*exponent != 0) {
        return m | HIDDEN;
    }
    shift = (uint32_t)__builtin_clz(m) - (31u - MANTISSA_BITS);
    *exponent = 1 - (int32_t)shift;
    return m << shift;
}

/* --- sum ---------------------------------------------------------------------------------------------------------- */

/* `large` or both are infinite or NaN. Small enough to be in line: a sum that calls nothing needs no stack. */
static inline uint32_t add_special(uint32_t large, uint32_t small)
{
    if (is_nan(large) || (small << 1 == large << 1 && small != large)) {
        return BL_CANONICAL_NAN; /* the other one is infinity less itself */
    }
    return large;
}

float __addsf3(float a, float b)
{
    uint32_t large = bl_float_bits(a), small = bl_float_bits(b);
    uint32_t exponent, small_exponent, m, n;

    if (large << 1 < small << 1) {
        uint32_t other = large;
        large = small;
        small = other;
    }
    exponent = exponent_of(large);
    small_exponent = exponent_of(small);
    m = large & MANTISSA;
    n = small & MANTISSA;
    if (RARELY(exponent == TOP_EXPONENT)) {
        return bl_float_from_bits(add_special(large, small));
    }
    if (small_exponent != 0) {
        m |= HIDDEN;
        n |= HIDDEN;
    } else {
        if (n == 0) {
            return bl_float_from_bits(is_zero(large) ? large & small : large);
        }
        small_exponent = 1;
        if (exponent != 0) {
            m |= HIDDEN;
        } else {
            exponent = 1;
        }
    }
    m <<= GUARD_BITS;
    n <<= GUARD_BITS;
    small_exponent = exponent - small_exponent;
    n = small_exponent < 31 ? shift_right_sticky(n, small_exponent) : 1u;
    if ((int32_t)(large ^ small) >= 0) {
        m += n;
        if (m >= LEADING << 1) {
            m = (m >> 1) | (m & 1u);
            exponent++;
            if (RARELY(exponent == TOP_EXPONENT)) {
                return bl_float_from_bits((large & SIGN) | INFINITE);
            }
        }
    } else {
        m -= n;
        if (m < LEADING) {
            uint32_t shift;

            if (m == 0) {
                return bl_float_from_bits(0);
            }
            shift = (uint32_t)__builtin_clz(m) - (31u - MANTISSA_BITS - GUARD_BITS);
            if (RARELY(shift >= exponent)) {
                shift = exponent - 1u; /* subnormal */
            }
            m <<= shift;
            exponent -= shift;
        }
    }
    return bl_float_from_bits(round_and_pack(large & SIGN, exponent, m));
}

float __subsf3(float a, float b)
{
    return __addsf3(a, bl_float_from_bits(bl_float_bits(b) ^ SIGN));
}

/* --- product ------------------------------------------------------------------------------------------------------ */

/* The product of two significands with their leading bits at HIDDEN, without its last 16 bits but for their sticky mark.
 * In three multiplications of which no product is longer than 32 bits. */
static inline uint32_t multiply_significands(uint32_t m, uint32_t n)
{
    uint32_t low = (m & 0xFFFFu) * (n & 0xFFFFu);
    uint32_t top = m * (n >> 16) + (m >> 16) * (n & 0xFFFFu) + (low >> 16);

    return low << 16 == 0 ? top : top | 1u;
}

static inline uint32_t multiply_finite(uint32_t sign, int32_t exponent, uint32_t m, uint32_t n)
{
    uint32_t product = multiply_significands(m, n);

    if (product >= LEADING << 1) {
        product = (product >> 1) | (product & 1u);
        exponent++;
    }
    return finish(sign, exponent - BIAS, product);
}

/* One of them is zero, subnormal, infinite or NaN. */
static RARE uint32_t multiply_special(uint32_t a, uint32_t b)
{
    uint32_t sign = (a ^ b) & SIGN;
    int32_t exponent_a, exponent_b;
    uint32_t m, n;

    if (is_nan(a) || is_nan(b)) {
        return BL_CANONICAL_NAN;
    }
    if (exponent_of(a) == TOP_EXPONENT || exponent_of(b) == TOP_EXPONENT) {
        return is_zero(a) || is_zero(b) ? BL_CANONICAL_NAN : sign | INFINITE;
    }
    if (is_zero(a) || is_zero(b)) {
        return sign;
    }
    m = normalized(a, &exponent_a);
    n = normalized(b, &exponent_b);
    return multiply_finite(sign, exponent_a + exponent_b, m, n);
}

float __mulsf3(float x, float y)
{
    uint32_t a = bl_float_bits(x);
    uint32_t b = bl_float_bits(y);
    uint32_t exponent_a = exponent_of(a);
    uint32_t exponent_b = exponent_of(b);

    if (RARELY(exponent_a - 1u >= TOP_EXPONENT - 1u || exponent_b - 1u >= TOP_EXPONENT - 1u)) {
        return bl_float_from_bits(multiply_special(a, b));
    }
    return bl_float_from_bits(multiply_finite((a ^ b) & SIGN, (int32_t)(exponent_a + exponent_b),
                                              (a & MANTISSA) | HIDDEN, (b & MANTISSA) | HIDDEN));
}

/* --- quotient ----------------------------------------------------------------------------------------------------- */

/* The quotient of two significands with their leading bits at HIDDEN, m not less than n, bit by bit: its leading bit at
 * LEADING, the rest as a sticky mark. */
static uint32_t divide_significands(uint32_t m, uint32_t n)
{
    uint32_t quotient = 0;

    for (unsigned i = 0; i <= MANTISSA_BITS + GUARD_BITS; i++) {
        quotient <<= 1;
        if (m >= n) {
            m -= n;
            quotient |= 1u;
        }
        m <<= 1;
    }
    return m != 0 ? quotient | 1u : quotient;
}

static uint32_t divide(uint32_t a, uint32_t b)
{
    uint32_t sign = (a ^ b) & SIGN;
    int32_t exponent_a, exponent_b;
    uint32_t m, n;

    if (is_nan(a) || is_nan(b)) {
        return BL_CANONICAL_NAN;
    }
    if (exponent_of(a) == TOP_EXPONENT) {
        return exponent_of(b) == TOP_EXPONENT ? BL_CANONICAL_NAN : sign | INFINITE;
    }
    if (exponent_of(b) == TOP_EXPONENT) {
        return sign;
    }
    if (is_zero(b)) {
        return is_zero(a) ? BL_CANONICAL_NAN : sign | INFINITE;
    }
    if (is_zero(a)) {
        return sign;
    }
    m = normalized(a, &exponent_a);
    n = normalized(b, &exponent_b);
    if (m < n) {
        m <<= 1;
        exponent_a--;
    }
    return finish(sign, exponent_a - exponent_b + BIAS, divide_significands(m, n));
}

float __divsf3(float a, float b)
{
    return bl_float_from_bits(divide(bl_float_bits(a), bl_float_bits(b)));
}

/* --- comparison --------------------------------------------------------------------------------------------------- */

/* An integer in the order of the numbers, equal for both zeros. */
static inline int32_t order_of(uint32_t a)
{
    return (int32_t)(a & SIGN ? SIGN - a : a);
}

static inline int compare(float x, float y, int unordered)
{
    uint32_t a = bl_float_bits(x);
    uint32_t b = bl_float_bits(y);

    if (is_nan(a) || is_nan(b)) {
        return unordered;
    }
    if (order_of(a) == order_of(b)) {
        return 0;
    }
    return order_of(a) < order_of(b) ? -1 : 1;
}

int __eqsf2(float a, float b)
{
    return compare(a, b, 1);
}

int __nesf2(float a, float b)
{
    return compare(a, b, 1);
}

int __ltsf2(float a, float b)
{
    return compare(a, b, 1);
}

int __lesf2(float a, float b)
{
    return compare(a, b, 1);
}

int __gtsf2(float a, float b)
{
    return compare(a, b, -1);
}

int __gesf2(float a, float b)
{
    return compare(a, b, -1);
}

int __unordsf2(float a, float b)
{
    return is_nan(bl_float_bits(a)) || is_nan(bl_float_bits(b));
}

/* --- conversion --------------------------------------------------------------------------------------------------- */

static inline uint32_t from_integer(uint32_t sign, uint32_t magnitude)
{
    uint32_t zeros, m;

    if (magnitude == 0) {
        return 0;
    }
    zeros = (uint32_t)__builtin_clz(magnitude);
    m = magnitude << zeros;
    return round_and_pack(sign, BIAS + 31u - zeros, (m >> 1) | (m & 1u));
}

float __floatsisf(int32_t a)
{
    uint32_t sign = (uint32_t)a & SIGN;

    return bl_float_from_bits(from_integer(sign, sign != 0 ? 0u - (uint32_t)a : (uint32_t)a));
}

float __floatunsisf(uint32_t a)
{
    return bl_float_from_bits(from_integer(0, a));
}

/* The magnitude of a number below 2^32, toward zero. */
static uint32_t truncated(uint32_t a)
{
    uint32_t m = (a & MANTISSA) | HIDDEN;
    uint32_t exponent = exponent_of(a);

    if (exponent < BIAS) {
        return 0;
    }
    return exponent < BIAS + MANTISSA_BITS ? m >> (BIAS + MANTISSA_BITS - exponent)
                                           : m << (exponent - BIAS - MANTISSA_BITS);
}

int32_t __fixsfsi(float x)
{
    uint32_t a = bl_float_bits(x);

    if (is_nan(a)) {
        return 0;
    }
    if (exponent_of(a) >= BIAS + 31) {
        return a & SIGN ? INT32_MIN : INT32_MAX;
    }
    return a & SIGN ? -(int32_t)truncated(a) : (int32_t)truncated(a);
}

uint32_t __fixunssfsi(float x)
{
    uint32_t a = bl_float_bits(x);

    if (is_nan(a) || a & SIGN) {
        return 0;
    }
    return exponent_of(a) >= BIAS + 32 ? UINT32_MAX : truncated(a);
}
