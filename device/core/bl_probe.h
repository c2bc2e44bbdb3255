/* The arithmetic probe: does this chip, with this compiler, round as docs/arithmetic.md says? */
#ifndef BL_PROBE_H
#define BL_PROBE_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Compute the cases of spec.PROBE_CASES, in their order, from volatile operands; the results' bits. */
void bl_probe_run(uint32_t results[BL_PROBE_COUNT]);

#ifdef __cplusplus
}
#endif

#endif /* BL_PROBE_H */
