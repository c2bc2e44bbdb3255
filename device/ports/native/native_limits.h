/* What the simulated device does not say that it can, so that a host can be held against poorer ones. */
#ifndef NATIVE_LIMITS_H
#define NATIVE_LIMITS_H

#include "../../core/bl_server.h"

typedef struct {
    uint8_t codings; /* bits of BL_CODING_... that it names */
    uint8_t ranges;  /* the most that it tells of */
    bool no_delta;
} native_limits;

/* Nothing is kept back. */
native_limits native_limits_none(void);

/* Is anything kept back? */
bool native_limits_any(const native_limits *limits);

/* Take out of a decoded frame that is about to be sent what the device is not to know. `length` is without CRC; returns
 * the new one, which is not longer. */
size_t native_limits_apply(const native_limits *limits, uint8_t *frame, size_t length);

#endif /* NATIVE_LIMITS_H */
