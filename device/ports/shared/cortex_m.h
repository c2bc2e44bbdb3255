/* What every Cortex-M3 and M4 port shares: start-up, time, sleep, faults. Registers: ARMv7-M Architecture Reference
 * Manual (ARM DDI 0403E), sections B3.2 (system control), B3.3 (SysTick), C1.6 (DEMCR), C1.8 (DWT). */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CORTEX_M_REGISTER(address) (*(volatile uint32_t *)(address))

/* Placed by the linker script. */
extern uint8_t __bl_stack_low[], __bl_stack_top[];
extern uint8_t __bl_static_start[], __bl_static_end[];
extern uint8_t __bl_arena_start[], __bl_arena_end[];

/* --- exceptions -------------------------------------------------------------------------------------------------- */

/* An entry of the vector table (DDI 0403E, B1.5.3). */
typedef void (*cortex_m_vector)(void);

/* The first 16 entries, from the initial stack pointer to SysTick: the port's table begins with them. */
#define CORTEX_M_SYSTEM_VECTORS                                                                                        \
    (cortex_m_vector)(uintptr_t)__bl_stack_top, cortex_m_reset, cortex_m_fault, cortex_m_fault, cortex_m_fault,        \
        cortex_m_fault, cortex_m_fault, NULL, NULL, NULL, NULL, cortex_m_fault, cortex_m_fault, NULL, cortex_m_fault,  \
        cortex_m_systick

/* Enables the FPU where the code uses one, fills .data and .bss, and calls main. */
void cortex_m_reset(void);

/* For every exception that must not happen: hands one line of text, between zero bytes so that the host takes it for no
 * part of a frame, to cortex_m_last_words, and resets the chip. Works from the top of the stack again, so that it works
 * after an overflow too. */
void cortex_m_fault(void);

void cortex_m_systick(void);

/* The port's: note that this boot ends with a fault, and send `text`, by polling and within a bounded time. */
void cortex_m_last_words(const uint8_t *text, size_t length);

/* --- time -------------------------------------------------------------------------------------------------------- */

/* Start SysTick, and the cycle counter of the DWT. Returns true if that counts: else the ticks are SysTick's. `clock_hz`
 * is the processor's. */
bool cortex_m_ticks_start(uint32_t clock_hz);

/* Clock cycles since then, for bl_port. By the DWT, the turns (2^32 cycles, 23 s at 180 MHz) in which nobody asks are
 * lost. */
uint64_t cortex_m_ticks(void *context);

/* For bl_port: SysTick's time in milliseconds, true to a twentieth of a second. Where ticks come of the DWT, all but one
 * of its turns (CORTEX_M_TURNS_A_SECOND) are lost while nobody asks. It begins a new turn of SysTick where that counts
 * the ticks: not to be called while an image is measured. */
uint32_t cortex_m_milliseconds(void *context);

/* SysTick's interrupt ends a sleep about so often. */
#define CORTEX_M_TURNS_A_SECOND 20u

/* The clock in Hz that the machine itself tells in SYST_CALIB, if SysTick's reference is an eighth of it as on every
 * STM32; 0 if it tells none. QEMU computes it from the emulated clock. On silicon it is a fixed number: 1 ms at the
 * chip's highest clock (RM0090 12.1.2, RM0008 10.1.1). */
uint32_t cortex_m_calibrated_hz(void);

/* --- interrupts and sleep ---------------------------------------------------------------------------------------- */

static inline void cortex_m_interrupts_off(void)
{
    __asm__ volatile("cpsid i" ::: "memory");
}

static inline void cortex_m_interrupts_on(void)
{
    __asm__ volatile("cpsie i" ::: "memory");
}

/* Sleep until an interrupt is pending; one that came since interrupts were switched off counts, though it is not taken
 * yet (DDI 0403E, B1.5, "Power management"). */
static inline void cortex_m_wait_for_interrupt(void)
{
    __asm__ volatile("dsb\n\twfi" ::: "memory");
}

/* Call with interrupts off: sleep until one is pending, or for a turn of SysTick at most. */
void cortex_m_sleep(void);

/* Enable interrupt `number`, 0 to 239. All have the same priority: none interrupts another. */
static inline void cortex_m_interrupt_enable(unsigned number)
{
    CORTEX_M_REGISTER(0xE000E100u + 4u * (number / 32u)) = (uint32_t)1 << (number % 32u); /* NVIC_ISER */
}

#endif /* CORTEX_M_H */
