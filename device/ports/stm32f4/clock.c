/* Clock and pins of STM32F4. Registers: RM0090 (F405, F407), RM0390 (F446), RM0368 (F401), RM0383 (F411); sections are
 * those of RM0090, the bits used here are the same in all but where it says so. */
#include "stm32_clock.h"

#include "cortex_m.h"
#include "stm32_board.h"

#define RCC_CR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x00u)      /* 7.3.1 */
#define RCC_PLLCFGR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x04u) /* 7.3.2 */
#define RCC_CFGR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x08u)    /* 7.3.3 */
#define RCC_AHB1ENR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x30u) /* 7.3.10 */
#define RCC_APB1ENR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x40u) /* 7.3.13 */
#define RCC_APB2ENR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x44u) /* 7.3.14 */
#define FLASH_ACR CORTEX_M_REGISTER(0x40023C00u)              /* 3.9.1 */
#define PWR_CR CORTEX_M_REGISTER(0x40007000u)                 /* 5.4.1 */
#define PWR_CSR CORTEX_M_REGISTER(0x40007004u)                /* 5.4.2 */
#define GPIOA_MODER CORTEX_M_REGISTER(0x40020000u)            /* 8.4.1 */
#define GPIOA_PUPDR CORTEX_M_REGISTER(0x4002000Cu)            /* 8.4.4 */
#define GPIOA_AFRL CORTEX_M_REGISTER(0x40020020u)             /* 8.4.9 */
#define GPIOA_AFRH CORTEX_M_REGISTER(0x40020024u)             /* 8.4.10 */

static const uint32_t CR_HSEON = 1u << 16, CR_HSERDY = 1u << 17, CR_HSEBYP = 1u << 18, CR_PLLON = 1u << 24,
                      CR_PLLRDY = 1u << 25;
static const uint32_t PLLCFGR_SRC_HSE = 1u << 22;
static const uint32_t CFGR_SW_PLL = 2u, CFGR_SWS_MASK = 3u << 2, CFGR_SWS_PLL = 2u << 2;
static const uint32_t ACR_PRFTEN = 1u << 8, ACR_ICEN = 1u << 9, ACR_DCEN = 1u << 10, ACR_LATENCY_MASK = 15u;
static const uint32_t PWR_VOS_MASK = 3u << 14, CSR_VOSRDY = 1u << 14;

enum { HSI_HZ = 16000000, PLL_INPUT_HZ = 2000000 };

/* The full clock: PLL_INPUT_HZ * N / P. Wait states for 2.7 V and more, from each manual's table "Number of wait states
 * according to CPU clock (HCLK) frequency"; bus dividers for an APB1 of up to 42, 45, 42, 50 MHz; VOS, the regulator's
 * scale, as the chip's highest clock wants it; Q keeps the USB clock, which is not used, at 48 MHz or below. */
#if defined(STM32F405)
enum { PLL_N = 168, PLL_P = 2, PLL_Q = 7, WAIT_STATES = 5, APB1_DIVIDER = 4, APB2_DIVIDER = 2, VOS = 1 };
#elif defined(STM32F446)
enum { PLL_N = 180, PLL_P = 2, PLL_Q = 8, WAIT_STATES = 5, APB1_DIVIDER = 4, APB2_DIVIDER = 2, VOS = 3 };
#elif defined(STM32F401)
enum { PLL_N = 168, PLL_P = 4, PLL_Q = 7, WAIT_STATES = 2, APB1_DIVIDER = 2, APB2_DIVIDER = 1, VOS = 2 };
#elif defined(STM32F411)
enum { PLL_N = 200, PLL_P = 4, PLL_Q = 9, WAIT_STATES = 3, APB1_DIVIDER = 2, APB2_DIVIDER = 1, VOS = 3 };
#endif

enum { FULL_HZ = PLL_INPUT_HZ * PLL_N / PLL_P, USART_DIVIDER = STM32_USART == 1 ? APB2_DIVIDER : APB1_DIVIDER };

/* PPRE1 and PPRE2 of RCC_CFGR: 0, or 4 + log2(divider) - 1. */
static uint32_t prescaler(uint32_t divider)
{
    return divider == 1u ? 0u : divider == 2u ? 4u : 5u;
}

static bool start_external_clock(void)
{
    if (BOARD_HSE_HZ == 0) {
        return false;
    }
    if (BOARD_HSE_BYPASS) {
        RCC_CR |= CR_HSEBYP;
    }
    RCC_CR |= CR_HSEON;
    if (stm32_wait(&RCC_CR, CR_HSERDY, CR_HSERDY)) {
        return true;
    }
    RCC_CR &= ~CR_HSEON;
    RCC_CR &= ~CR_HSEBYP; /* may be written only while HSEON is off */
    return false;
}

static bool start_pll(bool external)
{
    uint32_t input_hz = external ? BOARD_HSE_HZ : HSI_HZ;

    /* Bits 28 to 30 are F446's divider R, which must stay 2 or more: the reset value. */
    RCC_PLLCFGR = (RCC_PLLCFGR & 0xF0000000u) | (uint32_t)PLL_Q << 24 | (external ? PLLCFGR_SRC_HSE : 0u) |
                  (PLL_P / 2u - 1u) << 16 | (uint32_t)PLL_N << 6 | input_hz / PLL_INPUT_HZ;
    PWR_CR = (PWR_CR & ~PWR_VOS_MASK) | (uint32_t)VOS << 14; /* takes effect when the PLL is on */
    RCC_CR |= CR_PLLON;
    return stm32_wait(&RCC_CR, CR_PLLRDY, CR_PLLRDY) && stm32_wait(&PWR_CSR, CSR_VOSRDY, CSR_VOSRDY);
}

/* F446 runs above 168 MHz in over-drive mode only (RM0390, "Voltage regulator"). */
static bool over_drive(void)
{
#if defined(STM32F446)
    const uint32_t ODEN = 1u << 16, ODSWEN = 1u << 17, ODRDY = 1u << 16, ODSWRDY = 1u << 17;

    PWR_CR |= ODEN;
    if (!stm32_wait(&PWR_CSR, ODRDY, ODRDY)) {
        return false;
    }
    PWR_CR |= ODSWEN;
    return stm32_wait(&PWR_CSR, ODSWRDY, ODSWRDY);
#else
    return true;
#endif
}

/* Wait states and dividers first: they must fit the faster clock when it comes. */
static bool switch_to_pll(void)
{
    FLASH_ACR = ACR_PRFTEN | ACR_ICEN | ACR_DCEN | WAIT_STATES;
    if (!stm32_wait(&FLASH_ACR, ACR_LATENCY_MASK, WAIT_STATES)) {
        return false;
    }
    RCC_CFGR = prescaler(APB1_DIVIDER) << 10 | prescaler(APB2_DIVIDER) << 13;
    RCC_CFGR |= CFGR_SW_PLL;
    return stm32_wait(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL);
}

stm32_clock stm32_clock_start(void)
{
    stm32_clock clock = {HSI_HZ, HSI_HZ};

    RCC_APB1ENR |= 1u << 28; /* PWR */
    if (start_pll(start_external_clock()) && over_drive() && switch_to_pll()) {
        clock.core_hz = FULL_HZ;
        clock.usart_hz = FULL_HZ / USART_DIVIDER;
    } else {
        RCC_CFGR = 0;
    }
    RCC_AHB1ENR |= 1u << 0; /* GPIOA */
#if STM32_USART == 1
    RCC_APB2ENR |= 1u << 4;
#else
    RCC_APB1ENR |= 1u << 17;
#endif
    (void)RCC_APB2ENR; /* two cycles until the peripherals answer */
    return clock;
}

/* USART1: PA9, PA10. USART2: PA2, PA3. Alternate function 7 of both; the receiving pin is pulled up, so that an open one
 * is silent. */
void stm32_pins_start(void)
{
    const uint32_t sends = STM32_USART == 1 ? 9 : 2;
    const uint32_t receives = sends + 1;
    const uint32_t shift = 4u * (sends % 8u);
    const uint32_t functions = 0x77u << shift;

#if STM32_USART == 1
    GPIOA_AFRH = (GPIOA_AFRH & ~(0xFFu << shift)) | functions;
#else
    GPIOA_AFRL = (GPIOA_AFRL & ~(0xFFu << shift)) | functions;
#endif
    GPIOA_PUPDR = (GPIOA_PUPDR & ~(3u << 2u * receives)) | 1u << 2u * receives;
    GPIOA_MODER = (GPIOA_MODER & ~(15u << 2u * sends)) | 10u << 2u * sends;
}
