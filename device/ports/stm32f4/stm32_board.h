/* The boards of this port, one chosen by -DBL_BOARD_...: name, processor, clock, USART and buffers. */
#ifndef STM32_BOARD_H
#define STM32_BOARD_H

/* The clock tree is that of F405/F407 (RM0090 7), F446 (RM0390 6), F401 (RM0368 6) or F411 (RM0383 6). BOARD_HSE_HZ is
 * the external clock, 0 for none; with BOARD_HSE_BYPASS 1 it is fed in by another chip and no crystal. */
#if defined(BL_BOARD_STM32F405)
#define BOARD_NAME "stm32f405"
#define STM32F405
#define BOARD_HSE_HZ 0 /* boards with this chip have crystals of 8, 12 or 25 MHz */
#define BOARD_HSE_BYPASS 0
#define STM32_USART 1

#elif defined(BL_BOARD_DISCO_F407VG)
#define BOARD_NAME "disco_f407vg"
#define STM32F405
#define BOARD_HSE_HZ 8000000 /* X2 (UM1472) */
#define BOARD_HSE_BYPASS 0
#define STM32_USART 2

#elif defined(BL_BOARD_NUCLEO_F446RE)
#define BOARD_NAME "nucleo_f446re"
#define STM32F446
#define BOARD_HSE_HZ 8000000 /* MCO of the ST-LINK (UM1724 6.7.1); boards before C-02 do not connect it */
#define BOARD_HSE_BYPASS 1
#define STM32_USART 2

#elif defined(BL_BOARD_NUCLEO_F401RE)
#define BOARD_NAME "nucleo_f401re"
#define STM32F401
#define BOARD_HSE_HZ 8000000
#define BOARD_HSE_BYPASS 1
#define STM32_USART 2

#elif defined(BL_BOARD_NUCLEO_F411RE)
#define BOARD_NAME "nucleo_f411re"
#define STM32F411
#define BOARD_HSE_HZ 8000000
#define BOARD_HSE_BYPASS 1
#define STM32_USART 2

#else
#error "choose a board of device/ports/stm32f4/stm32_board.h, such as -DBL_BOARD_NUCLEO_F446RE"
#endif

#define BOARD_ISA "ARMv7E-M, Cortex-M4F"
#define BOARD_BODY_BYTES 1024
#define BOARD_SEND_BODY_BYTES 1024
#define BOARD_CODE_TABLES 1
#define BOARD_RING_BYTES 4096
#define BOARD_TABLE_BITS 8

#ifndef BL_BAUD
#define BL_BAUD 115200
#endif

/* RM0090 2.3 (the others have the same map), 7.3.21, 12.1.3. */
#define STM32_RCC_BASE 0x40023800u
#define STM32_RCC_CSR_OFFSET 0x74u
#if STM32_USART == 1
#define STM32_USART_BASE 0x40011000u
#define STM32_USART_INTERRUPT 37
#else
#define STM32_USART_BASE 0x40004400u
#define STM32_USART_INTERRUPT 38
#endif

#endif /* STM32_BOARD_H */
