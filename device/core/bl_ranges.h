/* What was received of a stream beyond `next`, the position up to which everything is here (docs/protocol.md, "Upload"). */
#ifndef BL_RANGES_H
#define BL_RANGES_H

#include "bl_base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ranges that are kept at most: 8 bytes of state each. A small board may lower it by flag. */
#ifndef BL_RANGES
#define BL_RANGES BL_MAX_RANGES
#endif
BL_STATIC_ASSERT(BL_RANGES >= 1 && BL_RANGES <= BL_MAX_RANGES, "an acknowledgement has room for 1 to 7 ranges");

typedef struct {
    uint32_t begin;
    uint32_t end;
} bl_range;

/* Ascending, none empty, none touching another or `next`, which is the stream's own. Empty when all is 0. */
typedef struct {
    bl_range list[BL_RANGES];
    uint8_t count;
} bl_ranges;

/* The bytes begin .. end (none if end <= begin) are here from now on: `next` moves on, or they become (part of) a range.
 * At most `most` ranges are kept (it may be more than BL_RANGES). Returns false, and changes nothing, if they would need
 * one more. */
bool bl_ranges_add(bl_ranges *ranges, uint32_t *next, uint32_t begin, uint32_t end, uint32_t most);

/* Is the byte at `position` here? Lowers `stop`, which lies behind `position`, to where the answer changes, if it does
 * before. */
bool bl_ranges_hold(const bl_ranges *ranges, uint32_t next, uint32_t position, uint32_t *stop);

#ifdef __cplusplus
}
#endif

#endif /* BL_RANGES_H */
