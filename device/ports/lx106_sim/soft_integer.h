/* Integer arithmetic that the core has no instruction for (it multiplies 32 by 32 bits to 32), under the names that GCC
 * calls. A division by zero executes an illegal instruction, which the port reports. */
#ifndef SOFT_INTEGER_H
#define SOFT_INTEGER_H

#include <stdint.h>

uint32_t __udivsi3(uint32_t a, uint32_t b);
uint32_t __umodsi3(uint32_t a, uint32_t b);

/* Toward zero; the remainder has the sign of `a`. The quotient of INT32_MIN and -1 wraps. */
int32_t __divsi3(int32_t a, int32_t b);
int32_t __modsi3(int32_t a, int32_t b);

/* Modulo 2^64: the same for signed numbers. */
uint64_t __muldi3(uint64_t a, uint64_t b);

#endif /* SOFT_INTEGER_H */
