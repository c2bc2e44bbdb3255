/* The LX106 core: special registers, interrupts, sleep (Xtensa Instruction Set Architecture Reference Manual, 4.4, 5.3). */
#ifndef LX106_H
#define LX106_H

#include <stdint.h>

#define LX106_READ(name, value) __asm__ volatile("rsr %0, " name : "=a"(value)::"memory")
#define LX106_WRITE(name, value) __asm__ volatile("wsr %0, " name "\n\trsync" ::"a"(value) : "memory")

/* The core's clock in Hz, as the board tells it: what CCOUNT counts. */
uint32_t lx106_clock_hz(void);

/* All interrupts that are used are of level 1. */
static inline void lx106_interrupts_off(void)
{
    uint32_t before;

    __asm__ volatile("rsil %0, 1" : "=a"(before)::"memory");
}

static inline void lx106_interrupts_on(void)
{
    uint32_t before;

    __asm__ volatile("rsil %0, 0" : "=a"(before)::"memory");
}

/* Switch interrupts on and sleep until one was taken; one that is pending already counts. */
static inline void lx106_wait_for_interrupt(void)
{
    __asm__ volatile("waiti 0" ::: "memory");
}

#endif /* LX106_H */
