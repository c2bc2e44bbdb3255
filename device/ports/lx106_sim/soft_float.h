/* binary32 arithmetic for a core without a floating-point unit: the functions that GCC calls for float operators, under
 * the names it gives them. Debian's libgcc for the LX106 leaves most of them out; the others are here too, so that the
 * firmware links without it.
 *
 * IEEE 754, to nearest, ties to even; subnormals are kept, infinities and signed zeros obeyed. A NaN result is always
 * 0x7FC00000 (BL_CANONICAL_NAN), whatever NaN went in: docs/arithmetic.md asks for no other. No flags, no exceptions. */
#ifndef SOFT_FLOAT_H
#define SOFT_FLOAT_H

#include <stdint.h>

float __addsf3(float a, float b);
float __subsf3(float a, float b);
float __mulsf3(float a, float b);
float __divsf3(float a, float b);

/* Comparison of the result with 0 is comparison of a with b. With a NaN it is on the side that makes the operator false:
 * not 0 for eq and ne, 1 for lt and le, -1 for gt and ge. */
int __eqsf2(float a, float b);
int __nesf2(float a, float b);
int __ltsf2(float a, float b);
int __lesf2(float a, float b);
int __gtsf2(float a, float b);
int __gesf2(float a, float b);
int __unordsf2(float a, float b); /* not 0 if a or b is a NaN */

float __floatsisf(int32_t a);
float __floatunsisf(uint32_t a);

/* Toward zero. What the type cannot hold, where C leaves all open, becomes its nearest number; NaN becomes 0. */
int32_t __fixsfsi(float a);
uint32_t __fixunssfsi(float a);

#endif /* SOFT_FLOAT_H */
