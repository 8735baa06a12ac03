// From the loader to ring 3, and back into ring 0 for interrupts alone.
//
// A hypervisor without hardware virtualization interprets ring 0 a thousand times slower than it runs ring 3, so
// ring 0 is these lines and no more. Ring 3 has every page; the few instructions that it may not execute (HLT,
// port accesses) fault, and ring 0 executes them. (IOPL 3 and INT n would do on real hardware only.)

.set KERNEL_CODE, 0x08
.set USER_DATA, 0x18 | 3
.set USER_CODE, 0x20 | 3
.set TASK, 0x28
.set FLAGS, 0x202                   // interrupts on

.set PRESENT_WRITABLE_USER, 7
.set LARGE, 0x80
.set UNCACHED, 0x18

.set FIRST_VECTOR, 32
.set VECTORS, 32                    // interrupts from 32 to 63
.set GATE, 0x8e00                   // present, ring 0, interrupt gate

// ---------------------------------------------------------------------------------------------------------
.section .note.pvh, "a"
.align 4
    .long 4, 4, 18                  // name's and value's length, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

.section .entry, "ax"
// PVH: protected mode without paging; ebx is hvm_start_info.
.code32
pvh_entry:
    cld
    movl $0x20, %eax                // PAE
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          // EFER
    rdmsr
    orl $0x100, %eax                // LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax           // PG, PE
    movl %eax, %cr0
    lgdt gdt_pointer
    movl $1, %esi
    movl %ebx, %edi
    ljmp $KERNEL_CODE, $enter

// Linux's 64-bit entry: long mode; rsi is boot_params.
.code64
.globl linux_entry
linux_entry:
    cld
    movq %rsi, %rdi
    xorl %esi, %esi
enter:
    movq $pml4, %rax
    movq %rax, %cr3
    movq %cr4, %rax
    orl $0x620, %eax                // PAE, OSFXSR, OSXMMEXCPT: compiled code uses SSE
    movq %rax, %cr4
    movq %cr0, %rax
    andl $~0xc, %eax                // neither EM nor TS
    orl $0x22, %eax                 // MP, NE
    movq %rax, %cr0
    lgdt gdt_pointer
    lidt idt_pointer
    movq $stack_0_end, %rsp
    movq $tss, %rax
    movw %ax, gdt + TASK + 2
    shrq $16, %rax
    movb %al, gdt + TASK + 4
    movb %ah, gdt + TASK + 7
    movq $stack_0_end, tss + 4      // RSP0
    movw $TASK, %ax
    ltr %ax

    // Gates, with the handler's address in three pieces.
    movq $idt, %rdx
    movq $exception_stubs, %rax
    movl $32, %ecx
1:  call set_gate
    addq $16, %rax
    loop 1b
    movq $interrupt_stubs, %rax
    movl $VECTORS, %ecx
2:  call set_gate
    addq $16, %rax
    loop 2b
    movw $USER_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    pushq $USER_DATA
    pushq $stack_3_end - 8          // as after a call
    pushq $FLAGS
    pushq $USER_CODE
    pushq $main
    iretq

// Writes the gate at rdx for the handler at rax; rdx moves on.
set_gate:
    movq %rax, %rbx
    movw %bx, (%rdx)
    movw $KERNEL_CODE, 2(%rdx)
    movw $GATE, 4(%rdx)
    shrq $16, %rbx
    movw %bx, 6(%rdx)
    movl $0, 8(%rdx)
    addq $16, %rdx
    ret

// ---------------------------------------------------------------------------------------------------------
// Interrupts are counted, and no more.
.align 16
interrupt_stubs:
.set vector, FIRST_VECTOR
.rept VECTORS
    .align 16
    pushq %rax
    movl $vector, %eax
    jmp count_interrupt
    .set vector, vector + 1
.endr

count_interrupt:
    incq interrupt_counts(, %rax, 8)
    incq interrupt_total
    movl $0xfee000b0, %eax          // end of interrupt
    movl $0, (%rax)
    popq %rax
    iretq

// Executes a privileged instruction for ring 3. On the stack: error code, rip, cs, rflags.
general_protection:
    pushq %rbx
    movq 16(%rsp), %rbx
    cmpw $0x6ef3, (%rbx)
    je 1f
    cmpb $0xec, (%rbx)
    je 2f
    cmpb $0xf4, (%rbx)
    je 3f
    popq %rbx
    movl $13, %edi
    jmp exception_with_code
1:  rep outsb
    addq $2, 16(%rsp)
    jmp 5f
2:  inb %dx, %al
    jmp 4f
3:  cmpq %rdi, interrupt_total      // unless one came since ring 3 looked
    jne 4f
    sti
    hlt
    cli
4:  incq 16(%rsp)
5:  popq %rbx
    addq $8, %rsp
    iretq

// An exception goes on in ring 3 with its vector, address and CR2 as arguments; nobody returns from there.
.align 16
exception_stubs:
.set vector, 0
.rept 32
    .align 16
    .if vector == 13
    jmp general_protection
    .endif
    movl $vector, %edi
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    jmp exception_with_code
    .else
    jmp exception
    .endif
    .set vector, vector + 1
.endr

exception_with_code:
    addq $8, %rsp
exception:
    movq (%rsp), %rsi
    movq %cr2, %rdx
    movq $fault, (%rsp)
    movq $USER_CODE, 8(%rsp)
    movq $FLAGS, 16(%rsp)
    movq $stack_3_end - 8, 24(%rsp)
    movq $USER_DATA, 32(%rsp)
    iretq

// ---------------------------------------------------------------------------------------------------------
.section .data
.align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // ring 0, 64-bit code
    .quad 0x00cf93000000ffff        // ring 0, data
    .quad 0x00cff3000000ffff        // ring 3, data
    .quad 0x00affb000000ffff        // ring 3, 64-bit code
    .quad 0x0000890000000067, 0     // the task; its base comes at run time
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 16 * 256 - 1
    .quad idt

// The first 4 GiB, one to one, in large pages: RAM up to 3 GiB, then devices. What is above is mapped on demand.
.align 4096
.globl pml4
pml4:
    .quad pdpt + PRESENT_WRITABLE_USER
    .fill 511, 8, 0
pdpt:
    .quad directories + PRESENT_WRITABLE_USER
    .quad directories + 0x1000 + PRESENT_WRITABLE_USER
    .quad directories + 0x2000 + PRESENT_WRITABLE_USER
    .quad directories + 0x3000 + PRESENT_WRITABLE_USER
    .fill 508, 8, 0
directories:
.set page, 0
.rept 3 * 512
    .quad page * 0x200000 + PRESENT_WRITABLE_USER + LARGE
    .set page, page + 1
.endr
.rept 512
    .quad page * 0x200000 + PRESENT_WRITABLE_USER + LARGE + UNCACHED
    .set page, page + 1
.endr

.section .bss
.align 4096
idt:
    .skip 4096
tss:
    .skip 128
.globl interrupt_counts
interrupt_counts:
    .skip 8 * 256
.globl interrupt_total
interrupt_total:
    .skip 8
.align 4096
    .skip 4096
stack_0_end:
    .skip 65536
stack_3_end:
