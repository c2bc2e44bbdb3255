/* A record that outlives a reset, in RAM that start-up code does not touch (.noinit). */
#ifndef BL_BOOT_H
#define BL_BOOT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t boots; /* since power was switched on, this one included */
    uint32_t fault; /* 1: the last boot ended with a fault */
    uint32_t check; /* what makes the record one that was written, not what RAM holds when power comes */
} bl_boot_record;

static inline uint32_t bl_boot_check(const bl_boot_record *record)
{
    return record->boots ^ (record->fault << 31) ^ 0x626C6F6Fu;
}

/* Count this boot. Returns true if the last one ended with a fault. */
static inline bool bl_boot_begin(bl_boot_record *record)
{
    bool kept = record->check == bl_boot_check(record) && record->fault <= 1u;
    bool fault = kept && record->fault == 1u;

    record->boots = kept ? record->boots + 1u : 1u;
    record->fault = 0;
    record->check = bl_boot_check(record);
    return fault;
}

/* Note that this boot ends with a fault. */
static inline void bl_boot_note_fault(bl_boot_record *record)
{
    record->fault = 1;
    record->check = bl_boot_check(record);
}

#endif /* BL_BOOT_H */
