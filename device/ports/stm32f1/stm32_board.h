/* The boards of this port, one chosen by -DBL_BOARD_...: name, clock and buffers. All use USART1 on PA9 and PA10. */
#ifndef STM32_BOARD_H
#define STM32_BOARD_H

#include "bl_frame.h"

/* BOARD_MULTIPLIER makes the full clock from the crystal, BOARD_INTERNAL_MULTIPLIER what comes nearest to it from half
 * the internal oscillator of 8 MHz. */
#if defined(BL_BOARD_BLUEPILL_F103C8)
#define BOARD_NAME "bluepill_f103c8"
#define STM32F103
#define BOARD_HSE_HZ 8000000
#define BOARD_MULTIPLIER 9
#define BOARD_INTERNAL_MULTIPLIER 16
#define BOARD_BODY_BYTES 256
#define BOARD_SEND_BODY_BYTES 256
#define BOARD_RING_BYTES 1024
#define BOARD_TABLE_BITS 8

#elif defined(BL_BOARD_STM32F100)
#define BOARD_NAME "stm32f100"
#define STM32F100
#define BOARD_HSE_HZ 8000000 /* of the STM32VLDISCOVERY (UM0919) */
#define BOARD_MULTIPLIER 3
#define BOARD_INTERNAL_MULTIPLIER 6
#define BOARD_BODY_BYTES 200
#define BOARD_SEND_BODY_BYTES 112
#define BOARD_RING_BYTES (2 * BL_FRAME_ENCODED_BYTES(BL_FRAME_BYTES(BOARD_BODY_BYTES)) + 1) /* two whole frames */
#define BOARD_TABLE_BITS 4

#else
#error "choose a board of device/ports/stm32f1/stm32_board.h, such as -DBL_BOARD_BLUEPILL_F103C8"
#endif

#define BOARD_ISA "ARMv7-M, Cortex-M3"
#define BOARD_CODE_TABLES 0 /* their RAM is the model's */

#ifndef BL_BAUD
#define BL_BAUD 115200
#endif

/* RM0008 (F103) 3.3, 7.3.10, 10.1.2; RM0041 (F100) 2.3, 6.3.10, 8.1.2. */
#define STM32_RCC_BASE 0x40021000u
#define STM32_RCC_CSR_OFFSET 0x24u
#define STM32_USART_BASE 0x40013800u
#define STM32_USART_INTERRUPT 37

#endif /* STM32_BOARD_H */
