#include <stdint.h>

/* Every port compiles this folder; this file is for one architecture. */
#if defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_7EM__)

#include "cortex_m.h"

#include "bl_server.h"
#include "bl_text.h"

#define SYST_CSR CORTEX_M_REGISTER(0xE000E010u)
#define SYST_RVR CORTEX_M_REGISTER(0xE000E014u)
#define SYST_CVR CORTEX_M_REGISTER(0xE000E018u)
#define SYST_CALIB CORTEX_M_REGISTER(0xE000E01Cu)
#define ICSR CORTEX_M_REGISTER(0xE000ED04u)
#define VTOR CORTEX_M_REGISTER(0xE000ED08u)
#define AIRCR CORTEX_M_REGISTER(0xE000ED0Cu)
#define CFSR CORTEX_M_REGISTER(0xE000ED28u)
#define HFSR CORTEX_M_REGISTER(0xE000ED2Cu)
#define BFAR CORTEX_M_REGISTER(0xE000ED38u)
#define CPACR CORTEX_M_REGISTER(0xE000ED88u)
#define DEMCR CORTEX_M_REGISTER(0xE000EDFCu)
#define DWT_CTRL CORTEX_M_REGISTER(0xE0001000u)
#define DWT_CYCCNT CORTEX_M_REGISTER(0xE0001004u)

static const uint32_t SYSTICK_MOST = 0xFFFFFF;
static const uint32_t CSR_ENABLE = 1u << 0, CSR_TICKINT = 1u << 1, CSR_CORE_CLOCK = 1u << 2, CSR_COUNTFLAG = 1u << 16;
static const uint32_t ICSR_PENDSTCLR = 1u << 25, ICSR_PENDSTSET = 1u << 26;
static const uint32_t CALIB_TENMS = 0xFFFFFFu;
static const uint32_t AIRCR_KEY = 0x05FA0000u, AIRCR_SYSRESETREQ = 1u << 2;
static const uint32_t DEMCR_TRCENA = 1u << 24;
static const uint32_t DWT_CYCCNTENA = 1u << 0;

/* --- start-up ---------------------------------------------------------------------------------------------------- */

extern uint8_t __bl_data_load[], __bl_data_start[], __bl_data_end[], __bl_bss_start[], __bl_bss_end[];
extern const cortex_m_vector cortex_m_vectors[];
int main(void);

void cortex_m_reset(void)
{
#if defined(__ARM_FP)
    CPACR |= 0xFu << 20; /* full access to CP10 and CP11, before the first floating-point instruction */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    VTOR = (uint32_t)(uintptr_t)cortex_m_vectors;
    memcpy(__bl_data_start, __bl_data_load, (size_t)(__bl_data_end - __bl_data_start));
    memset(__bl_bss_start, 0, (size_t)(__bl_bss_end - __bl_bss_start));
    (void)main();
    for (;;) {
        cortex_m_wait_for_interrupt();
    }
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static bool counts_cycles;
static volatile uint64_t ticks;
static uint32_t cycles_a_ms;
static uint32_t milliseconds;
static uint32_t milliseconds_at; /* the tick up to which they are counted */

/* Cycles between two interrupts of SysTick: a power of two where it counts the ticks. */
static uint32_t systick_turn(void)
{
    return SYST_RVR + 1u;
}

bool cortex_m_ticks_start(uint32_t clock_hz)
{
    uint32_t turn = clock_hz / CORTEX_M_TURNS_A_SECOND;

    DEMCR |= DEMCR_TRCENA;
    DWT_CYCCNT = 0;
    DWT_CTRL |= DWT_CYCCNTENA;
    for (unsigned i = 0; i < 16; i++) {
        __asm__ volatile("nop");
    }
    counts_cycles = DWT_CYCCNT != 0;
    cycles_a_ms = clock_hz / 1000u;
    if (!counts_cycles) {
        /* The longest turn of up to 0.1 s, so that an image is interrupted as seldom as can be. */
        turn = SYSTICK_MOST + 1u;
        while (turn > clock_hz / 10u) {
            turn /= 2u;
        }
    }
    SYST_RVR = turn - 1u;
    SYST_CVR = 0;
    SYST_CSR = CSR_CORE_CLOCK | CSR_ENABLE | (counts_cycles ? 0u : CSR_TICKINT);
    return counts_cycles;
}

/* Where cycles are counted it ends a sleep, and is never taken: cortex_m_sleep. */
void cortex_m_systick(void)
{
    ticks += systick_turn();
}

/* SysTick begins a new turn at each reading. So its interrupt, where an image takes longer than a turn, falls on the
 * same instruction each time the image is run, and costs the same. */
static uint64_t systick_read(void)
{
    const uint32_t turn = systick_turn();
    uint32_t count;
    uint64_t now;

    cortex_m_interrupts_off();
    count = SYST_CVR;
    if (ICSR & ICSR_PENDSTSET) {
        ICSR = ICSR_PENDSTCLR;
        count = SYST_CVR; /* the first may be of before the turn */
        ticks += turn;
    }
    SYST_CVR = 0;
    ticks += (turn - count) & (turn - 1u); /* it counts down, and reads 0 as a turn begins */
    now = ticks;
    cortex_m_interrupts_on();
    return now;
}

uint64_t cortex_m_ticks(void *context)
{
    (void)context;
    if (counts_cycles) {
        uint64_t last = ticks;
        ticks = bl_server_extend_ticks(&last, DWT_CYCCNT, 32);
        return last;
    }
    return systick_read();
}

/* The DWT stands still in sleep: time on the wall is SysTick's. */
uint32_t cortex_m_milliseconds(void *context)
{
    (void)context;
    if (counts_cycles) {
        if (SYST_CSR & CSR_COUNTFLAG) { /* since it was read last */
            milliseconds += 1000u / CORTEX_M_TURNS_A_SECOND;
        }
    } else {
        uint32_t passed = ((uint32_t)systick_read() - milliseconds_at) / cycles_a_ms;
        milliseconds += passed;
        milliseconds_at += passed * cycles_a_ms;
    }
    return milliseconds;
}

/* SysTick may interrupt an image only where it counts the image's ticks; elsewhere it may do so in sleep alone. Its
 * register is written and not read: that would clear COUNTFLAG. */
void cortex_m_sleep(void)
{
    if (counts_cycles) {
        SYST_CSR = CSR_CORE_CLOCK | CSR_ENABLE | CSR_TICKINT;
    }
    cortex_m_wait_for_interrupt();
    if (counts_cycles) {
        SYST_CSR = CSR_CORE_CLOCK | CSR_ENABLE;
        ICSR = ICSR_PENDSTCLR;
    }
}

uint32_t cortex_m_calibrated_hz(void)
{
    uint32_t tenms = SYST_CALIB & CALIB_TENMS; /* reference clocks in 10 ms, less one */

    return tenms == 0 || tenms >= 0xFFFFFFFFu / 800u ? 0 : (tenms + 1u) * 800u;
}

/* --- faults ------------------------------------------------------------------------------------------------------ */

/* Called by cortex_m_fault alone, which names it in assembly. */
__attribute__((noreturn, used)) void cortex_m_fault_report(uint32_t sp, uint32_t pc, uint32_t lr);

void cortex_m_fault_report(uint32_t sp, uint32_t pc, uint32_t lr)
{
    uint8_t text[128];
    uint8_t *at = text;
    uint32_t exception = ICSR & 0x1FFu;

    *at++ = 0;
    at = exception == 3 ? bl_text_put(at, "bitloop: HardFault")
                        : bl_text_put_word(at, "bitloop: exception ", exception);
    at = bl_text_put_word(at, " pc=", pc);
    at = bl_text_put_word(at, " lr=", lr);
    at = bl_text_put_word(at, " sp=", sp);
    at = bl_text_put_word(at, " cfsr=", CFSR);
    at = bl_text_put_word(at, " hfsr=", HFSR);
    at = bl_text_put_word(at, " bfar=", BFAR);
    at = bl_text_put(at, "\r\n");
    *at++ = 0;
    cortex_m_last_words(text, (size_t)(at - text));
    __asm__ volatile("dsb" ::: "memory");
    AIRCR = AIRCR_KEY | AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

/* The frame of the exception holds lr at 20 and pc at 24 (DDI 0403E, B1.5.6). It is read before the stack is taken back
 * to its top, and not at all where an overflow has left it below the RAM. */
__attribute__((naked)) void cortex_m_fault(void)
{
    __asm__ volatile("cpsid i\n\t"
                     "mrs r0, msp\n\t"
                     "movs r1, #0\n\t"
                     "movs r2, #0\n\t"
                     "movw r3, #:lower16:__bl_stack_low\n\t"
                     "movt r3, #:upper16:__bl_stack_low\n\t"
                     "cmp r0, r3\n\t"
                     "blo 1f\n\t"
                     "ldr r1, [r0, #24]\n\t"
                     "ldr r2, [r0, #20]\n"
                     "1:\n\t"
                     "movw r3, #:lower16:__bl_stack_top\n\t"
                     "movt r3, #:upper16:__bl_stack_top\n\t"
                     "msr msp, r3\n\t"
                     "b cortex_m_fault_report");
}

#endif /* ARMv7-M */
