/*
 * What busybox lacks: streams over vsock, for the monitor's tests. No libc, because each page of the
 * initrd costs where KVM interprets the guest's kernel.
 *
 *	vsock serve PORT		accepts one connection and echoes what comes
 *	vsock call CID PORT TEXT	connects, says TEXT, and prints what comes back
 */
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static long syscall3(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

static unsigned number(const char *text)
{
	unsigned value = 0;

	while (*text >= '0' && *text <= '9')
		value = value * 10 + (unsigned)(*text++ - '0');
	return value;
}

static long write_all(int fd, const char *data, long len)
{
	while (len > 0) {
		long done = syscall3(SYS_write, fd, (long)data, len);

		if (done <= 0)
			return -1;
		data += done;
		len -= done;
	}
	return 0;
}

/* Everything from one to the other, until its end. */
static long copy(int from, int to)
{
	static char buffer[16384];
	long len;

	while ((len = syscall3(SYS_read, from, (long)buffer, sizeof(buffer))) > 0)
		if (write_all(to, buffer, len) < 0)
			return -1;
	return len;
}

static long serve(const char *port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = number(port) };
	int listener = (int)syscall3(SYS_socket, AF_VSOCK, SOCK_STREAM, 0);
	int stream;

	if (syscall3(SYS_bind, listener, (long)&address, sizeof(address)) < 0)
		return 2;
	if (syscall3(SYS_listen, listener, 1, 0) < 0)
		return 3;
	stream = (int)syscall3(SYS_accept, listener, 0, 0);
	return stream < 0 || copy(stream, stream) < 0 ? 4 : 0;
}

static long call(const char *cid, const char *port, const char *text)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = number(cid), .svm_port = number(port) };
	int stream = (int)syscall3(SYS_socket, AF_VSOCK, SOCK_STREAM, 0);
	long len = 0;

	while (text[len])
		len++;
	if (syscall3(SYS_connect, stream, (long)&address, sizeof(address)) < 0)
		return 2;
	if (write_all(stream, text, len) < 0 || syscall3(SYS_shutdown, stream, SHUT_WR, 0) < 0)
		return 3;
	return copy(stream, 1) < 0 ? 4 : 0;
}

/* `stack` is as the kernel left it: argc, argv[0], argv[1], ... */
__attribute__((used)) static void start(long *stack)
{
	const char **arguments = (const char **)&stack[1];
	long code = 1;

	if (stack[0] == 3)
		code = serve(arguments[2]);
	else if (stack[0] == 5)
		code = call(arguments[2], arguments[3], arguments[4]);
	syscall3(SYS_exit_group, code, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
