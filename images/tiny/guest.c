/*
 * hearth-guest: what the tiny AMI's boot would need many processes for, in one
 * each (fork and exec cost 0.1 s where KVM interprets guest ring 0).
 *
 *   hearth-guest early DIR          mount the kernel's file systems, bring up lo, grow the root
 *                                   file system to its disk, make DIR (on /run)
 *   hearth-guest imds DIR PATH...   fetch /latest/PATH by IMDSv2 into DIR/<last part of PATH>
 *   hearth-guest power-button       wait for the ACPI power button, tell init to power off
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "hearth-guest: %s: %s\n", what, strerror(errno));
	return 1;
}

/* ---- early: mounts, lo -------------------------------------------- */

static const struct {
	const char *type, *where, *options;
	unsigned long flags;
} mounts[] = {
	{ "proc",     "/proc",    NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs",    "/sys",     NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "devtmpfs", "/dev",     NULL, MS_NOSUID },
	{ "devpts",   "/dev/pts", "gid=5,mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC },
	{ "tmpfs",    "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "tmpfs",    "/run",     "mode=0755", MS_NOSUID | MS_NODEV },
};

static int mount_all(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int bad = 0, sock;

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].where, 0755);
		/* EBUSY: the kernel has mounted it already (devtmpfs). */
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type,
			  mounts[i].flags, mounts[i].options) && errno != EBUSY)
			bad |= fail(mounts[i].where);
	}
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0 || ioctl(sock, SIOCSIFFLAGS, &lo))
		bad |= fail("lo");
	return bad;
}

/* ---- early: growth ------------------------------------------------ */

#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static int grow(void)
{
	char path[64];
	unsigned long long sectors = 0;
	struct stat root;
	struct statfs fs;
	uint64_t blocks;
	FILE *size;
	int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0 || fstat(dir, &root) || fstatfs(dir, &fs))
		return fail("/");
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size",
		 major(root.st_dev), minor(root.st_dev));
	size = fopen(path, "re");
	if (!size || fscanf(size, "%llu", &sectors) != 1)
		return fail(path);
	blocks = sectors * 512 / (uint64_t)fs.f_bsize;
	/* The kernel answers at once when there is nothing to grow. */
	if (ioctl(dir, EXT4_IOC_RESIZE_FS, &blocks))
		return fail("growing the root file system");
	if (fstatfs(dir, &fs))
		return fail("/");
	printf("hearth-tiny: root %llu MiB\n", (unsigned long long)fs.f_blocks * fs.f_bsize >> 20);
	return 0;
}

static int early(const char *dir)
{
	int bad = mount_all();

	bad |= grow();
	mkdir("/run/hearth", 0755);
	if (mkdir(dir, 0700))
		bad |= fail(dir);
	return bad;
}

/* ---- imds -------------------------------------------------------------- */

#define IMDS_ADDRESS	"169.254.169.254"
#define IMDS_WAIT	15	/* seconds until the first answer */
#define IMDS_STEP	2	/* seconds for one connect, send or receive */
#define IMDS_MAX	65536	/* bytes of one answer; user data is at most 16 KiB */

static char answer[IMDS_MAX + 1];
static int server = -1;	/* one connection for all requests: each costs a slow guest a second */

static void hang_up(void)
{
	close(server);
	server = -1;
}

static int dial(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct timeval step = { .tv_sec = IMDS_STEP };

	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	inet_pton(AF_INET, IMDS_ADDRESS, &to.sin_addr);
	setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &step, sizeof(step));
	setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof(step));
	return connect(server, (struct sockaddr *)&to, sizeof(to));
}

/* One HTTP/1.1 request. Returns the status code and the body, or -1 with errno. The answer's
 * length must be told by Content-Length (as EC2's and Hearth's IMDS do) or by closing. */
static int http(const char *method, const char *path, const char *header,
		const char *value, char **body, size_t *length)
{
	char request[1024], *end = NULL, *field;
	size_t have = 0, expected = SIZE_MAX;
	int status, size;

	size = snprintf(request, sizeof(request),
			"%s /latest/%s HTTP/1.1\r\nHost: " IMDS_ADDRESS "\r\n%s: %s\r\n"
			"Content-Length: 0\r\n\r\n", method, path, header, value);
	if (size < 0 || (size_t)size >= sizeof(request)) {
		errno = EMSGSIZE;
		return -1;
	}
	if ((server < 0 && dial()) || send(server, request, size, MSG_NOSIGNAL) != size)
		goto broken;
	while (!end || *length < expected) {
		ssize_t got = recv(server, answer + have, IMDS_MAX - have, 0);

		if (got < 0)
			goto broken;
		if (got == 0)
			break;
		have += got;
		answer[have] = '\0';
		if (!end && (end = strstr(answer, "\r\n\r\n"))) {
			field = strcasestr(answer, "\r\ncontent-length:");
			if (field && field < end)
				expected = strtoul(field + 17, NULL, 10);
		}
		if (end) {
			*body = end + 4;
			*length = have - (size_t)(*body - answer);
		}
	}
	if (!end || sscanf(answer, "HTTP/1.%*c %d", &status) != 1 ||
	    (expected != SIZE_MAX && *length < expected)) {
		errno = EPROTO;
		goto broken;
	}
	field = strcasestr(answer, "\r\nconnection: close");
	if (expected == SIZE_MAX || (field && field < end) || !strncmp(answer, "HTTP/1.0", 8))
		hang_up();
	if (expected < *length)
		*length = expected;
	return status;
broken:
	size = errno;
	hang_up();
	errno = size;
	return -1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int save(const char *dir, const char *path, const char *body, size_t length)
{
	const char *name = strrchr(path, '/');
	char file[256];
	int fd;

	snprintf(file, sizeof(file), "%s/%s", dir, name ? name + 1 : path);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, body, length) != (ssize_t)length)
		return fail(file);
	close(fd);
	return 0;
}

static int imds(const char *dir, char **paths)
{
	const struct timespec pause = { .tv_nsec = 500 * 1000 * 1000 };
	double deadline = now() + IMDS_WAIT;
	char token[256], *body;
	size_t length;
	int status, bad = 0;

	while ((status = http("PUT", "api/token", "X-aws-ec2-metadata-token-ttl-seconds",
			      "300", &body, &length)) != 200) {
		if (now() > deadline) {
			if (status >= 0)
				fprintf(stderr, "hearth-guest: IMDS answers %d to the token request\n", status);
			else
				fail("IMDS");
			return 1;
		}
		nanosleep(&pause, NULL);
	}
	if (length >= sizeof(token)) {
		fprintf(stderr, "hearth-guest: the IMDS token is too long\n");
		return 1;
	}
	memcpy(token, body, length);
	token[length] = '\0';

	for (; *paths; paths++) {
		for (int try = 0; try < 3; try++) {
			status = http("GET", *paths, "X-aws-ec2-metadata-token", token, &body, &length);
			if (status >= 0 && status < 500)
				break;
			nanosleep(&pause, NULL);
		}
		/* 404: this instance has none (no key pair, no user data). */
		if (status == 200)
			bad |= save(dir, *paths, body, length);
		else if (status != 404) {
			fprintf(stderr, "hearth-guest: IMDS answers %d to %s\n", status, *paths);
			bad = 1;
		}
	}
	return bad;
}

/* ---- power-button ------------------------------------------------------ */

static int has_power_key(int fd)
{
	unsigned char keys[KEY_MAX / 8 + 1] = { 0 };

	return ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
	       keys[KEY_POWER / 8] >> KEY_POWER % 8 & 1;
}

static int power_button(void)
{
	struct pollfd buttons[8];
	nfds_t count = 0;
	struct dirent *entry;
	DIR *dir = opendir("/dev/input");

	while (dir && (entry = readdir(dir)) && count < 8) {
		int fd;

		if (strncmp(entry->d_name, "event", 5))
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && has_power_key(fd))
			buttons[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
		else if (fd >= 0)
			close(fd);
	}
	if (count == 0) {
		errno = ENODEV;
		return fail("no power button");
	}
	/* Ready to listen: let the caller go on. */
	if (daemon(0, 0))
		return fail("daemon");
	for (;;) {
		struct input_event event;

		if (poll(buttons, count, -1) < 0)
			continue;
		for (nfds_t i = 0; i < count; i++)
			if (buttons[i].revents &&
			    read(buttons[i].fd, &event, sizeof(event)) == sizeof(event) &&
			    event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
				kill(1, SIGUSR2); /* busybox init: power off */
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "early") && argc == 3)
		return early(argv[2]);
	if (!strcmp(what, "imds") && argc > 3)
		return imds(argv[2], argv + 3);
	if (!strcmp(what, "power-button"))
		return power_button();
	fprintf(stderr, "usage: hearth-guest early DIR | imds DIR PATH... | power-button\n");
	return 2;
}
