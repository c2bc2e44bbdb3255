/* Control and status registers of a hart in machine mode. Sections are those of The RISC-V Instruction Set Manual,
 * Volume II: Privileged Architecture, version 1.11 (20190608). */
#ifndef RISCV_H
#define RISCV_H

#include <stdint.h>

#define RISCV_WRITE(csr, value) __asm__ volatile("csrw " #csr ", %0" ::"r"((uint32_t)(value)) : "memory")
#define RISCV_SET(csr, bits) __asm__ volatile("csrs " #csr ", %0" ::"r"((uint32_t)(bits)) : "memory")
#define RISCV_CLEAR(csr, bits) __asm__ volatile("csrc " #csr ", %0" ::"r"((uint32_t)(bits)) : "memory")
#define RISCV_READ(csr, variable) __asm__ volatile("csrr %0, " #csr : "=r"(variable)::"memory")

enum {
    RISCV_MSTATUS_MIE = 1 << 3, /* 3.1.6.1 */
    RISCV_MIE_MEIE = 1 << 11,   /* 3.1.9 */
    RISCV_PMP_R = 1 << 0,       /* 3.6.1 */
    RISCV_PMP_W = 1 << 1,
    RISCV_PMP_X = 1 << 2,
    RISCV_PMP_NAPOT = 3 << 3,
    RISCV_PMP_LOCKED = 1 << 7 /* holds in machine mode too */
};

/* Address register of a region of `bytes`, a power of two that `start` is aligned to (table 3.10). */
#define RISCV_PMP_REGION(start, bytes) (((start) >> 2) | ((bytes) / 8u - 1u))

#endif /* RISCV_H */
