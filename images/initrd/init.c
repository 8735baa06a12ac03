/*
 * The whole user space of the boot benchmarks: say one line, then power off (or restart, with
 * `-- reboot` at the end of the kernel command line). No libc: exec and its page faults would be
 * measured with the kernel. Standard output is the console, from the kernel's built-in /dev/console.
 */
#include <linux/reboot.h>
#include <sys/syscall.h>

static long syscall3(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

static const char line[] = "hearth-init: first line\n";

/* `stack` is as the kernel left it: argc, argv[0], argv[1], ... */
__attribute__((used)) static void start(long *stack)
{
	/* The last: before it come words of the command line that the kernel does not know. */
	const char *last = (const char *)stack[stack[0]];
	long how = last[0] == 'r' ? LINUX_REBOOT_CMD_RESTART : LINUX_REBOOT_CMD_POWER_OFF;

	syscall3(SYS_write, 1, (long)line, sizeof(line) - 1);
	syscall3(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, how);
	/* No power-off here (a machine without ACPI): try the other way out, then wait. */
	syscall3(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART);
	for (;;)
		syscall3(SYS_pause, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
