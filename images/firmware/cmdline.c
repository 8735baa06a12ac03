/*
 * The whole user space of the disks that compare boot roads: prints the kernel's command line and the initrds' names, then
 * powers off. No libc. Standard output is the console, from the kernel's built-in /dev/console.
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <sys/syscall.h>

static long syscall5(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static void say(const char *text, long length)
{
	syscall5(SYS_write, 1, (long)text, length, 0, 0);
}

/* Nothing for a file that is not there. */
static void show(const char *path)
{
	static char text[4096];
	long fd = syscall5(SYS_open, (long)path, O_RDONLY, 0, 0, 0);
	long length;

	while (fd >= 0 && (length = syscall5(SYS_read, fd, (long)text, sizeof(text), 0, 0)) > 0)
		say(text, length);
}

__attribute__((used)) static void start(void)
{
	syscall5(SYS_mkdir, (long)"/proc", 0755, 0, 0, 0);
	syscall5(SYS_mount, (long)"proc", (long)"/proc", (long)"proc", 0, 0);
	say("\ncmdline: ", 10);
	show("/proc/cmdline");
	say("initrds:", 8);
	show("/first");
	show("/second");
	show("/other");
	say("\nend\n", 5);
	syscall5(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0, 0);
	for (;;)
		syscall5(SYS_pause, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: and $-16, %rsp\n\tcall start\n");
