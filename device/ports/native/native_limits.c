#include "native_limits.h"

enum { ALL_CODINGS = BL_CODING_RUNS | BL_CODING_CODES, FIELD_HEADER_BYTES = 2, RANGE_BYTES = 8 };

native_limits native_limits_none(void)
{
    native_limits limits = {.codings = ALL_CODINGS, .ranges = BL_MAX_RANGES, .no_delta = false};

    return limits;
}

bool native_limits_any(const native_limits *limits)
{
    return (limits->codings & ALL_CODINGS) != ALL_CODINGS || limits->ranges < BL_MAX_RANGES || limits->no_delta;
}

/* Change the value of one of HELLO's fields. Returns whether the field stays. */
static bool change_field(const native_limits *limits, uint8_t tag, uint8_t *value)
{
    switch (tag) {
    case BL_HELLO_CODINGS:
        *value &= limits->codings;
        return *value != 0;
    case BL_HELLO_RANGES:
        *value = *value < limits->ranges ? *value : limits->ranges;
        return *value != 0;
    case BL_HELLO_CAPABILITIES:
        bl_store_u32(value, bl_load_u32(value) & ~(limits->no_delta ? (uint32_t)BL_CAP_DELTA_UPLOAD : 0u));
        return true;
    default: return true;
    }
}

static size_t change_hello(const native_limits *limits, uint8_t *body, size_t length)
{
    size_t from = 2;
    size_t to = 2;

    while (from + FIELD_HEADER_BYTES <= length) {
        size_t bytes = FIELD_HEADER_BYTES + (size_t)body[from + 1];
        bool stays = change_field(limits, body[from], body + from + FIELD_HEADER_BYTES);
        if (stays) {
            memmove(body + to, body + from, bytes);
            to += bytes;
        }
        from += bytes;
    }
    return to;
}

/* Bytes before the ranges of an answer that has some at its end, or 0. A RUN_CREDIT has 12, or 24 with streamed weights:
 * ranges are of 8. */
static size_t ranges_at(uint8_t type, size_t length)
{
    switch (type) {
    case BL_MSG_UPLOAD_READY:
    case BL_MSG_UPLOAD_ACK: return 8;
    case BL_MSG_UPLOAD_COPIED: return 10;
    case BL_MSG_RUN_CREDIT: return length % RANGE_BYTES == 4 ? 12 : 24;
    default: return 0;
    }
}

size_t native_limits_apply(const native_limits *limits, uint8_t *frame, size_t length)
{
    size_t body_length = length - BL_FRAME_HEADER_BYTES;
    size_t at = ranges_at(frame[0], body_length);

    if (frame[0] == BL_MSG_HELLO) {
        body_length = change_hello(limits, frame + BL_FRAME_HEADER_BYTES, body_length);
    } else if (at > 0 && body_length > at + (size_t)RANGE_BYTES * limits->ranges) {
        body_length = at + (size_t)RANGE_BYTES * limits->ranges;
    }
    return BL_FRAME_HEADER_BYTES + body_length;
}
