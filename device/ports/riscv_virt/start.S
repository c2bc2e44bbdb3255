/* Where the hart begins, and where it goes on traps (privileged ISA 1.11: 3.1.7, 3.4). */

    .section .text.start, "ax"
    .globl riscv_start
riscv_start:
    .option push
    .option norelax /* relaxed, this would be gp = gp */
    la gp, __global_pointer$
    .option pop
    la sp, __bl_stack_top
    la t0, vectors
    addi t0, t0, 1 /* vectored: an interrupt goes to the entry of its number, an exception to the first */
    csrw mtvec, t0
    la t0, __bl_data_start
    la t1, __bl_data_end
    la t2, __bl_data_load
1:  bgeu t0, t1, 2f
    lw t3, 0(t2)
    sw t3, 0(t0)
    addi t0, t0, 4
    addi t2, t2, 4
    j 1b
2:  la t0, __bl_bss_start
    la t1, __bl_bss_end
3:  bgeu t0, t1, 4f
    sw zero, 0(t0)
    addi t0, t0, 4
    j 3b
4:  call main
5:  wfi
    j 5b

    .section .text.vectors, "ax"
    .balign 64
    .option push
    .option norvc /* entries of four bytes */
vectors:
    j fault
    .rept 10
    j fault /* no other interrupt is enabled */
    .endr
    j riscv_external_interrupt
    .option pop

/* The stack may have overflowed: what is reported is worked out on a stack that is empty again. */
fault:
    mv a0, sp
    la sp, __bl_stack_top
    j riscv_fault
