/* Reset and exceptions of the LX106 (Xtensa, call0 ABI). What the offsets of the vectors and the interrupts are is a
 * matter of the core's configuration: QEMU, target/xtensa/core-lx106/core-isa.h. Exception causes and special registers:
 * Xtensa Instruction Set Architecture Reference Manual, 4.4.1 and 5.3. */

    .set CAUSE_INTERRUPT, 4
    .set PS_MASKED, 0x21     /* the same, interrupts of level 1 masked */

/* A core in an exception has interrupts masked, and sends another exception by the double vector. That is how an interrupt
 * handler runs here, to its end. Each way to a fault takes along in a2 where it came from. */
    .section .vectors, "ax"
    .align 256
    .global lx106_vectors
lx106_vectors:
    .org lx106_vectors + 0x10    /* debug */
    rsr     a2, epc2
    j       fault
    .org lx106_vectors + 0x20    /* non-maskable interrupt */
    rsr     a2, epc3
    j       fault
    .org lx106_vectors + 0x30    /* kernel: not used */
    rsr     a2, epc1
    j       fault
    .org lx106_vectors + 0x50    /* user */
    wsr     a0, excsave1
    rsr     a0, exccause
    bnei    a0, CAUSE_INTERRUPT, 1f
    j       interrupt
1:  rsr     a2, epc1
    j       fault
    .org lx106_vectors + 0x70    /* double: in an interrupt handler */
    rsr     a2, depc
    j       fault

    .section .text.start, "ax"
    .align 4
    .literal_position
    .global lx106_reset
lx106_reset:
    movi    a2, PS_MASKED
    wsr     a2, ps
    movi    a2, lx106_vectors
    wsr     a2, vecbase
    movi    a2, 0
    wsr     a2, intenable
    rsync
    movi    a1, __bl_stack_top
    call0   lx106_start

/* Save what a C function may change, and run the handlers. a0 is in EXCSAVE1. */
    .align 4
interrupt:
    addi    a1, a1, -48
    s32i    a2, a1, 0
    s32i    a3, a1, 4
    s32i    a4, a1, 8
    s32i    a5, a1, 12
    s32i    a6, a1, 16
    s32i    a7, a1, 20
    s32i    a8, a1, 24
    s32i    a9, a1, 28
    s32i    a10, a1, 32
    s32i    a11, a1, 36
    rsr     a2, sar
    s32i    a2, a1, 40
    call0   lx106_interrupt
    l32i    a2, a1, 40
    wsr     a2, sar
    l32i    a2, a1, 0
    l32i    a3, a1, 4
    l32i    a4, a1, 8
    l32i    a5, a1, 12
    l32i    a6, a1, 16
    l32i    a7, a1, 20
    l32i    a8, a1, 24
    l32i    a9, a1, 28
    l32i    a10, a1, 32
    l32i    a11, a1, 36
    addi    a1, a1, 48
    rsr     a0, excsave1
    rfe

/* lx106_fault(pc, cause, address, sp), on the stack's top: it may have overflowed. */
    .align 4
    .literal_position
fault:
    rsr     a3, exccause
    rsr     a4, excvaddr
    mov     a5, a1
    movi    a1, __bl_stack_top
    call0   lx106_fault
