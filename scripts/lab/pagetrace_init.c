/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init of the page trace: records every block that leaves or joins the buddy free
 * lists of a stock i386 kernel under load, in a ring buffer large enough for all of
 * it, and writes everything to /dev/vda when done: raw ring-buffer pages from
 * RAW_OFFSET on, before that a ustar archive of the snapshots.  pagetrace.py reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing/"
enum { PAGE = 4096, RAW_OFFSET = 8 << 20, STORE = 6 << 20 };

static char *store; /* ustar archive, filled while running; touched beforehand */
static size_t stored;
static unsigned seed = 1;

static unsigned random_below(unsigned limit) /* the same on every run */
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % limit;
}

static int set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		printf("pagetrace: %s: %s: %s\n", path, value, strerror(errno));
	return fd < 0 ? fd : close(fd);
}

/* Adds one file to the archive in memory. */
static void keep(const char *name, const char *path)
{
	char *header = store + stored, *data = header + 512;
	unsigned sum = 0;
	size_t size = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return;
	while (stored + 512 + size + 65536 < STORE && (got = read(fd, data + size, 65536)) > 0)
		size += got;
	close(fd);
	memset(header, 0, 512);
	snprintf(header, 100, "%s", name);
	strcpy(header + 100, "0000644");
	strcpy(header + 108, "0000000");
	strcpy(header + 116, "0000000");
	snprintf(header + 124, 12, "%011lo", (unsigned long)size);
	strcpy(header + 136, "00000000000");
	header[156] = '0';
	memcpy(header + 257, "ustar\00000", 8);
	memset(header + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += (unsigned char)header[i];
	snprintf(header + 148, 8, "%06o", sum);
	stored += 512 + (size + 511) / 512 * 512;
}

static void snapshot(int n)
{
	static const char *const files[] = { "pagetypeinfo", "zoneinfo", "vmstat", "meminfo", "kpageflags" };
	char text[64], path[64];

	sleep(1); /* let deferred frees and background reclaim end */
	printf("pagetrace: snapshot %d\n", n);
	snprintf(text, sizeof text, "SNAP %d begin", n);
	set(TRACEFS "trace_marker", text);
	snprintf(text, sizeof text, "buddyinfo-%d", n);
	keep(text, "/proc/buddyinfo");
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(text, sizeof text, "%s-%d", files[i], n);
		snprintf(path, sizeof path, "/proc/%s", files[i]);
		keep(text, path);
	}
	snprintf(text, sizeof text, "buddyinfo-%db", n);
	keep(text, "/proc/buddyinfo");
	snprintf(text, sizeof text, "SNAP %d end", n);
	set(TRACEFS "trace_marker", text);
}

static void module(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/modules/%s.ko", name);
	fd = open(path, O_RDONLY);
	if (syscall(SYS_finit_module, fd, "", 0) < 0)
		printf("pagetrace: %s: %s\n", path, strerror(errno));
	close(fd);
}

/* Children that exec this program again and end; up to `alive` at a time. */
static void fork_exec(int count, int alive)
{
	int running = 0;

	for (int i = 0; i < count; i++) {
		if (running == alive) {
			wait(NULL);
			running--;
		}
		if (fork() == 0) {
			char *again[] = { "/init", "touch", NULL };

			execv("/init", again);
			_exit(1);
		}
		running++;
	}
	while (running--)
		wait(NULL);
}

/* Files of random size in tmpfs, written, rewritten and removed. */
static void file_churn(int rounds, int files, unsigned largest)
{
	static char block[65536];
	char path[64];

	for (int i = 0; i < rounds; i++) {
		int which = random_below(files), fd;
		unsigned left = random_below(largest);

		snprintf(path, sizeof path, "/tmp/%d", which);
		if (random_below(3) == 0) {
			unlink(path);
			continue;
		}
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		while (left) {
			unsigned n = left < sizeof block ? left : sizeof block;

			if (write(fd, block, n) < 0)
				break;
			left -= n;
		}
		close(fd);
	}
}

/* Page cache that reclaim must take back. */
static void read_disk(unsigned megabytes)
{
	static char block[65536];
	int fd = open("/dev/vda", O_RDONLY);

	for (unsigned i = 0; i < megabytes * 16; i++)
		if (read(fd, block, sizeof block) <= 0)
			lseek(fd, RAW_OFFSET, SEEK_SET);
	close(fd);
}

static char *holes(unsigned megabytes, unsigned step)
{
	size_t size = (size_t)megabytes << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < size; i += PAGE)
		memory[i] = 1;
	for (size_t i = 0; i < size; i += PAGE * step)
		madvise(memory + i, PAGE, MADV_DONTNEED);
	return memory;
}

/* Living processes, which need order-1 stacks, on fragmented memory. */
static void waiting(int count)
{
	pid_t *children = calloc(count, sizeof *children);

	for (int i = 0; i < count; i++) {
		children[i] = fork();
		if (children[i] == 0)
			for (;;)
				pause();
	}
	for (int i = 0; i < count; i++)
		if (children[i] > 0)
			kill(children[i], 9);
	while (wait(NULL) > 0)
		;
	free(children);
}

static void sockets(int pairs)
{
	static char block[32768];
	int (*fd)[2] = calloc(pairs, sizeof *fd);

	for (int i = 0; i < pairs; i++) {
		socketpair(AF_UNIX, SOCK_STREAM, 0, fd[i]);
		for (int j = 0; j < 4; j++)
			send(fd[i][0], block, sizeof block, MSG_DONTWAIT);
	}
	for (int i = 0; i < pairs; i++) {
		close(fd[i][0]);
		close(fd[i][1]);
	}
	free(fd);
}

/* One line, its newline included; 0 at the end. */
static int read_line(int fd, char *line, size_t size)
{
	size_t n = 0;

	while (n + 1 < size && read(fd, line + n, 1) == 1)
		if (line[n++] == '\n')
			break;
	line[n] = 0;
	return n > 0;
}

static void enable(void)
{
	static const char *const events[] = {
		"kmem/mm_page_alloc", "kmem/mm_page_free", "kmem/mm_page_free_batched",
		"kmem/mm_page_alloc_zone_locked", "kmem/mm_page_pcpu_drain", "kmem/mm_page_alloc_extfrag",
		"compaction/mm_compaction_begin", "compaction/mm_compaction_end",
		"compaction/mm_compaction_isolate_migratepages", "compaction/mm_compaction_isolate_freepages",
		"compaction/mm_compaction_migratepages", "vmscan/mm_vmscan_direct_reclaim_begin",
		"vmscan/mm_vmscan_direct_reclaim_end", "vmscan/mm_vmscan_kswapd_wake",
		"vmscan/mm_vmscan_kswapd_sleep", "kprobes/free_0", "kprobes/free_1", "kprobes/free_2",
		"kprobes/free_3", "kprobes/free_4", "kprobes/isolate_free_page", "kprobes/isolate_free_page_done",
	};
	char path[128], name[64], line[256];

	set(TRACEFS "buffer_size_kb", "28672");
	/* one probe a line, written by pagetrace.py from the kernel's disassembly */
	for (int fd = open("/probes", O_RDONLY); read_line(fd, line, sizeof line);)
		set(TRACEFS "kprobe_events", line);
	keep("probes", TRACEFS "kprobe_events");
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
		snprintf(path, sizeof path, TRACEFS "events/%s/format", events[i]);
		snprintf(name, sizeof name, "formats/%s", strchr(events[i], '/') + 1);
		keep(name, path);
		snprintf(path, sizeof path, TRACEFS "events/%s/enable", events[i]);
		set(path, "1");
	}
	keep("formats/print", TRACEFS "events/ftrace/print/format");
	set(TRACEFS "trace", "\n");
	close(open(TRACEFS "trace", O_WRONLY | O_TRUNC));
}

static void write_out(void)
{
	static char page[PAGE];
	int disk = open("/dev/vda", O_RDWR), raw = open(TRACEFS "per_cpu/cpu0/trace_pipe_raw", O_RDONLY | O_NONBLOCK);
	unsigned pages = 0, done = 0;
	ssize_t got;

	lseek(disk, RAW_OFFSET, SEEK_SET);
	while ((got = read(raw, page, PAGE)) > 0) {
		memset(page + got, 0, PAGE - got);
		if (write(disk, page, PAGE) != PAGE)
			printf("pagetrace: disk full\n");
		pages++;
	}
	memset(page, 0, PAGE);
	if (write(disk, page, PAGE) < 0) /* a page without data ends the trace */
		printf("pagetrace: disk full\n");
	memset(store + stored, 0, 1024);
	stored += 1024;
	lseek(disk, 0, SEEK_SET);
	while (done < stored && (got = write(disk, store + done, stored - done)) > 0)
		done += got;
	fsync(disk);
	printf("pagetrace: %u trace pages, %u bytes of files\n", pages, (unsigned)stored);
}

int main(int argc, char **argv)
{
	static const char *const modules[] = { "virtio", "virtio_ring", "virtio_pci_legacy_dev",
					       "virtio_pci_modern_dev", "virtio_pci", "virtio_blk" };
	char *first, *second;

	if (argc > 1 && !strcmp(argv[1], "touch")) {
		char *memory = malloc(200 * PAGE);

		for (int i = 0; i < 200; i++)
			memory[i * PAGE] = 1;
		return 0;
	}
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, "size=60m");
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned i = 0; i < sizeof modules / sizeof *modules; i++)
		module(modules[i]);
	mknod("/dev/vda", S_IFBLK | 0600, makedev(254, 0));
	store = mmap(NULL, STORE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	mlock(store, STORE);
	keep("cmdline", "/proc/cmdline");
	keep("uname", "/proc/version");
	keep("zoneinfo-boot", "/proc/zoneinfo");
	enable();

	snapshot(0);
	fork_exec(40, 8);
	waiting(60);
	snapshot(1);
	file_churn(150, 24, 2 << 20);
	fork_exec(20, 4);
	snapshot(2);
	read_disk(60);
	sockets(40);
	snapshot(3);
	first = holes(24, 2);
	set("/proc/sys/vm/compact_memory", "1");
	snapshot(4);
	file_churn(60, 24, 1 << 20);
	second = holes(16, 3);
	waiting(150);
	snapshot(5);
	munmap(first, 24 << 20);
	set("/proc/sys/vm/drop_caches", "3");
	fork_exec(20, 8);
	set("/proc/sys/vm/compact_memory", "1");
	snapshot(6);
	munmap(second, 16 << 20);
	set(TRACEFS "tracing_on", "0");
	keep("stats", TRACEFS "per_cpu/cpu0/stats");
	write_out();
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
