/* Clock and pins of STM32F1. Registers: RM0008 (F103), RM0041 (F100); sections are those of RM0008, the bits used here
 * are the same in both, but for the flash, which an F100 reads without wait states. */
#include "stm32_clock.h"

#include "cortex_m.h"
#include "stm32_board.h"

#define RCC_CR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x00u)      /* 7.3.1 */
#define RCC_CFGR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x04u)    /* 7.3.2 */
#define RCC_APB2ENR CORTEX_M_REGISTER(STM32_RCC_BASE + 0x18u) /* 7.3.7 */
#define GPIOA_CRH CORTEX_M_REGISTER(0x40010804u)              /* 9.2.2 */
#define GPIOA_BSRR CORTEX_M_REGISTER(0x40010810u)             /* 9.2.5 */

static const uint32_t CR_HSEON = 1u << 16, CR_HSERDY = 1u << 17, CR_PLLON = 1u << 24, CR_PLLRDY = 1u << 25;
static const uint32_t CFGR_SW_PLL = 2u, CFGR_SWS_MASK = 3u << 2, CFGR_SWS_PLL = 2u << 2, CFGR_PLLSRC_HSE = 1u << 16;

enum { HSI_HZ = 8000000 };

static bool start_external_clock(void)
{
    RCC_CR |= CR_HSEON;
    if (stm32_wait(&RCC_CR, CR_HSERDY, CR_HSERDY)) {
        return true;
    }
    RCC_CR &= ~CR_HSEON;
    return false;
}

/* Two wait states above 48 MHz, and the prefetch buffer on (RM0008 3.3.3). */
static void slow_flash(void)
{
#if defined(STM32F103)
    CORTEX_M_REGISTER(0x40022000u) = 1u << 4 | 2u; /* FLASH_ACR */
#endif
}

/* APB1 may run at 36 MHz at most, half of the fullest clock; the USART's bus, APB2, runs at the core's. */
static bool start_pll(bool external)
{
    uint32_t multiplier = external ? BOARD_MULTIPLIER : BOARD_INTERNAL_MULTIPLIER;
    uint32_t configuration = (multiplier - 2u) << 18 | (external ? CFGR_PLLSRC_HSE : 0u) | 4u << 8;

    slow_flash();
    RCC_CFGR = configuration;
    RCC_CR |= CR_PLLON;
    if (!stm32_wait(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        return false;
    }
    RCC_CFGR = configuration | CFGR_SW_PLL;
    return stm32_wait(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL);
}

stm32_clock stm32_clock_start(void)
{
    stm32_clock clock = {HSI_HZ, HSI_HZ};
    bool external = start_external_clock();

    if (start_pll(external)) {
        clock.core_hz = external ? BOARD_HSE_HZ * BOARD_MULTIPLIER : HSI_HZ / 2 * BOARD_INTERNAL_MULTIPLIER;
        clock.usart_hz = clock.core_hz;
    } else {
        RCC_CFGR = 0;
    }
    RCC_APB2ENR |= 1u << 2 | 1u << 14; /* GPIOA, USART1 */
    (void)RCC_APB2ENR;                 /* until they answer */
    return clock;
}

/* PA9: alternate function, push-pull, 2 MHz (0b1010). PA10: input, pulled up (0b1000), so that an open one is silent. */
void stm32_pins_start(void)
{
    GPIOA_BSRR = 1u << 10;
    GPIOA_CRH = (GPIOA_CRH & ~0xFF0u) | 0x8A0u;
}
