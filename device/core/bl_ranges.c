#include "bl_ranges.h"

/* Take out `count` ranges from `first` on. */
static void take_out(bl_ranges *ranges, unsigned first, unsigned count)
{
    ranges->count = (uint8_t)(ranges->count - count);
    for (unsigned i = first; i < ranges->count; i++) {
        ranges->list[i] = ranges->list[i + count];
    }
}

bool bl_ranges_add(bl_ranges *ranges, uint32_t *next, uint32_t begin, uint32_t end, uint32_t most)
{
    bl_range *list = ranges->list;
    unsigned first = 0; /* ranges first .. last - 1 touch the new bytes */
    unsigned last;

    if (end <= begin || end <= *next) {
        return true;
    }
    if (begin <= *next) {
        unsigned met = 0;
        *next = end;
        while (met < ranges->count && list[met].begin <= *next) {
            *next = list[met].end > *next ? list[met].end : *next;
            met++;
        }
        take_out(ranges, 0, met);
        return true;
    }
    while (first < ranges->count && list[first].end < begin) {
        first++;
    }
    last = first;
    while (last < ranges->count && list[last].begin <= end) {
        last++;
    }
    if (first == last) {
        if (ranges->count >= BL_RANGES || ranges->count >= most) {
            return false;
        }
        for (unsigned i = ranges->count; i > first; i--) {
            list[i] = list[i - 1u];
        }
        ranges->count++;
        list[first].begin = begin;
        list[first].end = end;
        return true;
    }
    list[first].begin = list[first].begin < begin ? list[first].begin : begin;
    list[first].end = list[last - 1u].end > end ? list[last - 1u].end : end;
    take_out(ranges, first + 1u, last - first - 1u);
    return true;
}

bool bl_ranges_hold(const bl_ranges *ranges, uint32_t next, uint32_t position, uint32_t *stop)
{
    bool held = position < next;
    uint32_t change = next;

    for (unsigned i = 0; !held && i < ranges->count && change <= position; i++) {
        const bl_range *range = &ranges->list[i];
        held = position >= range->begin && position < range->end;
        change = position < range->begin ? range->begin : range->end;
    }
    if (change > position && change < *stop) {
        *stop = change;
    }
    return held;
}
