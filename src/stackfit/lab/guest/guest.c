/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init of a lab machine: loads modules, runs workloads, and writes to the second serial port
 * what the kernel's tracers saw.  stackfit/lab/capture.py reads it.
 *
 * Words of the kernel command line:
 *	stackfit.steps=A,B	steps by name or group; all of them without it
 *	stackfit.stacks=1	the stack tracer's deepest chain of every step
 *	stackfit.edges=1	distinct (return address, callee) of ftrace's `function` tracer
 *	stackfit.seconds=N	begin further rounds for so long (while edges are recorded)
 *	stackfit.marks=1	run the steps without any tracer, keep their processes, wait for the
 *				memory to be dumped
 * /order lists modules to load: `boot NAME` at once, `stay NAME` before the first step of the
 * group `judgement`, `cycle NAME` before its round and removed behind it.
 *
 * Lines of the output (numbers in hexadecimal but for counts):
 *	@@ stack STEP … @@ end	text of stack_trace
 *	@@ file PATH … @@ end	a file of the guest
 *	L EPOCH MODULE		module loaded during that epoch (0: before the tracer was on)
 *	S MODULE SECTION ADDRESS	its sections, following its L
 *	U EPOCH MODULE		module removed during that epoch
 *	P EPOCH RETURN CALLEE	pair; epoch 0 when both lie in the kernel itself
 *	# …			a fact or a count, decimal
 *	@@ end of recording
 *
 * An epoch ends before and after every module is loaded or removed, with the tracer stopped
 * and the buffer read empty, because a later module may take an earlier one's addresses.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/fanotify.h>
#include <linux/filter.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing/"
enum { PAGE = 4096, SLOTS = 1 << 19, FUNCTION_EVENT = 1, MOST_CPUS = 64 };
static unsigned long kernel_first, kernel_end; /* the image's code; modules are elsewhere */

/* ---- the recorder ---- */

struct pair {
	unsigned long back, callee;
	uint32_t epoch, used;
};

static struct recorder {
	volatile unsigned asked, done; /* the reader sets done = asked once all is read */
	volatile unsigned epoch, ready, reading; /* ready: the tracer is there to read; reading: it is read */
	unsigned long events, pages, lost, distinct, others;
	struct pair pairs[SLOTS];
} *recorder;

static FILE *out; /* in memory until the end: it is needed before the disk is there */
static char *out_text;
static size_t out_size;
static int tracing, tracing_on_fd;
static pid_t reader_pid;

static void copy_text(const char *what, const char *name, const char *path)
{
	char line[4096];
	FILE *file = fopen(path, "r");

	fprintf(out, "@@ %s %s\n", what, name);
	while (file && fgets(line, sizeof line, file))
		fputs(line, out);
	fprintf(out, "@@ end\n");
	if (file)
		fclose(file);
}

static void stop(const char *why)
{
	printf("lab: %s: %s\n", why, strerror(errno));
	sync();
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static int set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	int bad = fd < 0 || write(fd, value, strlen(value)) < 0;

	if (bad)
		printf("lab: %s: %s: %s\n", path, value, strerror(errno));
	if (fd >= 0)
		close(fd);
	return bad ? -1 : 0;
}

static int in_kernel(unsigned long address)
{
	return address >= kernel_first && address <= kernel_end;
}

static void count_pair(unsigned long back, unsigned long callee)
{
	uint32_t epoch = in_kernel(back) && in_kernel(callee) ? 0 : recorder->epoch;
	uint64_t hash = (back * 0x9e3779b97f4a7c15ull) ^ (callee * 0xc2b2ae3d27d4eb4full) ^ epoch;
	struct pair *slot;

	hash ^= hash >> 29;
	for (;; hash++) {
		slot = &recorder->pairs[hash % SLOTS];
		if (!slot->used)
			break;
		if (slot->back == back && slot->callee == callee && slot->epoch == epoch)
			return;
	}
	if (recorder->distinct == SLOTS - 1)
		stop("too many pairs");
	*slot = (struct pair){ back, callee, epoch, 1 };
	recorder->distinct++;
}

/* One page of the ring buffer: include/linux/ring_buffer.h, events/header_page, header_event. */
static void count_page(const unsigned char *page)
{
	/* struct buffer_data_page: a time stamp, a local_t, the events; ip and parent_ip follow a header of 8 bytes */
	unsigned long commit = *(const unsigned long *)(page + 8);
	const unsigned char *at = page + 8 + sizeof(long), *end = at + (commit & 0xfffff);

	if (commit & (1u << 31))
		recorder->lost++;
	recorder->pages++;
	while (at < end) {
		uint32_t head = *(const uint32_t *)at, kind = head & 31, length = kind * 4;

		at += 4;
		if (kind == 29) { /* padding; without a length it ends the page */
			if (head >> 5 == 0)
				break;
			at += *(const uint32_t *)at;
			continue;
		}
		if (kind > 29) { /* time extend, time stamp */
			at += 4;
			continue;
		}
		if (kind == 0) {
			length = *(const uint32_t *)at - 4;
			at += 4;
		}
		if (*(const uint16_t *)at == FUNCTION_EVENT) {
			count_pair(*(const unsigned long *)(at + 8 + sizeof(long)), *(const unsigned long *)(at + 8));
			recorder->events++;
		} else {
			recorder->others++;
		}
		at += length;
	}
}

static void reader(void)
{
	static unsigned char page[PAGE] __attribute__((aligned(4096)));
	struct sched_param priority = { .sched_priority = 1 };
	int cpus = sysconf(_SC_NPROCESSORS_CONF), fds[MOST_CPUS];
	char path[96];

	cpus = cpus < MOST_CPUS ? cpus : MOST_CPUS;
	for (int i = 0; i < cpus; i++) {
		snprintf(path, sizeof path, TRACEFS "per_cpu/cpu%d/trace_pipe_raw", i);
		fds[i] = open(path, O_RDONLY | O_NONBLOCK);
		if (fds[i] < 0)
			stop(path);
	}
	mlockall(MCL_CURRENT);
	sched_setscheduler(0, SCHED_FIFO, &priority);
	recorder->reading = 1;
	for (;;) {
		unsigned asked = recorder->asked, got = 0;

		for (int i = 0; i < cpus; i++)
			for (int n = 0; n < 4096 && read(fds[i], page, PAGE) > 0; n++) {
				count_page(page);
				got++;
			}
		if (got == 0) {
			recorder->done = asked;
			usleep(3000);
		}
	}
}

/* Stops the tracer and waits until the reader has seen everything. */
static void trace_off(void)
{
	if (!tracing)
		return;
	write(tracing_on_fd, "0", 1);
	usleep(5000);
	recorder->asked++;
	while (recorder->done != recorder->asked)
		usleep(1000);
}

static void trace_on(void)
{
	if (tracing)
		write(tracing_on_fd, "1", 1);
}

static void next_epoch(void)
{
	trace_off();
	if (tracing)
		recorder->epoch++;
	trace_on();
}

/* ---- modules ---- */

static void write_sections(const char *name)
{
	char path[256], text[64];
	struct dirent *entry;
	DIR *directory;
	FILE *file;

	fprintf(out, "L %x %s\n", recorder ? recorder->epoch : 0, name);
	snprintf(path, sizeof path, "/sys/module/%s/sections", name);
	directory = opendir(path);
	while (directory && (entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "/sys/module/%s/sections/%.100s", name, entry->d_name);
		file = fopen(path, "r");
		if (file && fgets(text, sizeof text, file))
			fprintf(out, "S %s %s %s", name, entry->d_name, text);
		if (file)
			fclose(file);
	}
	if (directory)
		closedir(directory);
}

static void load_with(const char *name, const char *options)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "/modules/%s.ko", name);
	fd = open(path, O_RDONLY);
	next_epoch();
	if (syscall(SYS_finit_module, fd, options, 0) < 0) {
		printf("lab: %s: %s\n", name, strerror(errno));
		trace_off();
	} else {
		trace_off();
		write_sections(name);
	}
	if (tracing)
		recorder->epoch++;
	trace_on();
	close(fd);
}

static void load(const char *name)
{
	load_with(name, "");
}

static void unload(const char *name)
{
	next_epoch();
	if (syscall(SYS_delete_module, name, O_NONBLOCK) < 0)
		printf("lab: %s stays: %s\n", name, strerror(errno));
	else
		fprintf(out, "U %x %s\n", recorder ? recorder->epoch : 0, name);
	next_epoch();
}

/* Loads (or unloads) the modules that /order lists with a word. */
static void modules_of(const char *word, int in)
{
	char line[128], kind[16], name[96];
	FILE *file = fopen("/order", "r");

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "%15s %95s", kind, name) == 2 && !strcmp(kind, word))
			in ? load(name) : unload(name);
	if (file)
		fclose(file);
}

/* ---- steps ---- */

static int stacks, marks;

static int sh(const char *script)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execl("/bin/busybox", "sh", "-c", script, NULL);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return status;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Runs in a process group of its own, for at most a minute. */
static void step(const char *name, void (*function)(void))
{
	double start = now();
	int status = 0;
	pid_t child;

	printf("lab: step %s\n", name);
	if (stacks)
		set(TRACEFS "stack_max_size", "0");
	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		signal(SIGALRM, SIG_DFL);
		alarm(60);
		if (marks)
			prctl(PR_SET_NAME, name);
		function();
		alarm(0);
		if (marks)
			raise(SIGSTOP); /* its stack is to be seen in the dump */
		_exit(0);
	}
	waitpid(child, &status, marks ? WUNTRACED : 0);
	kill(-child, marks && WIFSTOPPED(status) ? SIGSTOP : SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (stacks)
		copy_text("stack", name, TRACEFS "stack_trace");
	printf("lab: %s: %.1f s, status %x\n", name, now() - start, status);
}

static void fill(char *data, size_t size)
{
	static unsigned seed = 1;

	for (size_t i = 0; i < size; i++) {
		seed = seed * 1664525u + 1013904223u;
		data[i] = seed >> 24;
	}
}

static void write_file(const char *path, size_t size)
{
	static char block[16384];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	fill(block, sizeof block);
	for (size_t done = 0; done < size; done += sizeof block)
		write(fd, block, sizeof block);
	close(fd);
}

/* ---- workload `development` ---- */

static void processes(void)
{
	sh("for i in 1 2 3 4 5 6; do /bin/busybox true; done; ls -l /bin | grep bus | wc -l;"
	   "cat /proc/cpuinfo | sed s/a/b/ | sort | uniq -c | tail -n 3; (sleep 0.1; echo x) & wait;"
	   "echo 'a b c' | while read a b c; do echo $c; done; ps; uname -a; id; date; free; df;"
	   "/no/such/file; ulimit -a; umask 022; cd /tmp; pwd; env; time true; nice -n 5 true; printf '#!/bin/sh\\nexit 3\\n' > s;"
	   "chmod +x s; ./s");
	for (int i = 0; i < 8; i++) {
		pid_t child = i & 1 ? vfork() : fork();

		if (child == 0)
			_exit(i);
		waitpid(child, NULL, 0);
	}
}

static void *thread(void *argument)
{
	char page[8192];

	fill(page, sizeof page);
	sched_yield();
	usleep(100);
	return argument;
}

static void threads(void)
{
	pthread_t ids[8];

	for (int round = 0; round < 3; round++) {
		for (long i = 0; i < 8; i++)
			pthread_create(&ids[i], NULL, thread, (void *)i);
		for (int i = 0; i < 8; i++)
			pthread_join(ids[i], NULL);
	}
}

/* Everyday file operations below one directory. */
static void files_in(const char *directory)
{
	char from[128], to[128], data[10000], link_text[128];
	struct iovec vector[2] = { { data, 100 }, { data + 200, 5000 } };
	struct timespec times[2] = { { 1000, 0 }, { 2000, 0 } };
	struct statfs statfs_data;
	struct stat stat_data;
	struct dirent *entry;
	DIR *opened;
	int fd;

	mkdir(directory, 0755);
	chdir(directory);
	fill(data, sizeof data);
	for (int i = 0; i < 40; i++) {
		snprintf(from, sizeof from, "file-%d", i);
		fd = open(from, O_RDWR | O_CREAT, 0644);
		write(fd, data, 300 * i + 1);
		pwrite(fd, data, 4000, 50000);
		writev(fd, vector, 2);
		if (i % 4 == 0)
			fsync(fd);
		if (i % 4 == 1)
			fdatasync(fd);
		lseek(fd, 10, SEEK_SET);
		read(fd, data, 5000);
		readv(fd, vector, 2);
		pread(fd, data, 100, 45000);
		lseek(fd, 0, SEEK_HOLE);
		lseek(fd, 20000, SEEK_DATA);
		if (i % 3 == 0)
			ftruncate(fd, 1234);
		if (i % 5 == 0)
			fallocate(fd, 0, 0, 200000);
		if (i % 10 == 0)
			fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192);
		if (i == 15)
			fallocate(fd, FALLOC_FL_ZERO_RANGE, 8192, 8192);
		if (i == 20)
			fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096);
		fstat(fd, &stat_data);
		fchmod(fd, 0600);
		fchown(fd, 1, 1);
		futimens(fd, times);
		posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		flock(fd, LOCK_EX);
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		close(fd);
		snprintf(to, sizeof to, "renamed-%d", i);
		if (i % 2)
			rename(from, to);
		if (i % 6 == 0)
			link(from, to);
		if (i % 7 == 0) {
			snprintf(to, sizeof to, "symbolic-%d", i);
			symlink(from, to);
			readlink(to, link_text, sizeof link_text);
			stat(to, &stat_data);
			lstat(to, &stat_data);
		}
		if (i % 8 == 0) {
			snprintf(to, sizeof to, "directory-%d", i);
			mkdir(to, 0755);
		}
	}
	mkdir("a", 0755);
	mkdir("a/b", 0755);
	rename("a/b", "moved");
	rename("file-2", "file-4");
	access("file-4", R_OK);
	mkfifo("fifo", 0600);
	mknod("node", S_IFCHR | 0600, 0x0103);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd >= 0)
		close(fd);
	truncate("file-6", 100);
	truncate("file-8", 100000);
	opened = opendir(".");
	while ((entry = readdir(opened)))
		if (entry->d_type == DT_REG)
			stat(entry->d_name, &stat_data);
	rewinddir(opened);
	while ((entry = readdir(opened))) {
		if (unlink(entry->d_name) < 0)
			rmdir(entry->d_name);
	}
	closedir(opened);
	statfs(".", &statfs_data);
	/* larger than what is allocated at once, read back from the disk */
	write_file("large", 3 << 20);
	fd = open("large", O_RDWR);
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	while (read(fd, data, sizeof data) > 0)
		;
	syscall(SYS_syncfs, fd);
	close(fd);
	unlink("large");
	chdir("/");
}

static void files(void)
{
	files_in("/tmp/files");
	files_in("/disk/files");
	files_in("/loop/files");
}

static void shell_files(void)
{
	sh("cd /disk; rm -rf tree; cp -r /modules tree; tar cf tree.tar tree; mkdir copy; tar xf tree.tar -C copy;"
	   "gzip tree.tar; find copy -type f -exec md5sum {} ';' ; du -s copy; diff -r tree copy; rm -rf copy tree.tar.gz;"
	   "grep -r GPL tree | head; ls -lR tree; sync; echo 3 > /proc/sys/vm/drop_caches; cat tree/* | wc -c;"
	   "dd if=/dev/zero of=/disk/zeros bs=64k count=40 conv=fsync; mv zeros zeros2; rm -rf tree zeros2; df; mount");
	sh("cd /tmp; seq 1 2000 > n; sort -r n > m; awk '{s+=$1} END {print s}' m; cmp n m; rm n m; mkdir -p x/y/z; touch x/y/z/f;"
	   "mv x w; chmod -R 700 w; chown -R 3:3 w; rm -r w");
}

static void pipes(void)
{
	char data[5000];
	int a[2], b[2];
	pid_t child;

	pipe(a);
	pipe2(b, O_CLOEXEC);
	child = fork();
	if (child == 0) {
		close(a[1]);
		while (read(a[0], data, sizeof data) > 0)
			write(b[1], data, 100);
		_exit(0);
	}
	close(a[0]);
	for (int i = 0; i < 100; i++)
		write(a[1], data, i * 49);
	close(a[1]);
	close(b[1]);
	while (read(b[0], data, sizeof data) > 0)
		;
	waitpid(child, NULL, 0);
	signal(SIGPIPE, SIG_IGN);
	pipe(a);
	fcntl(a[1], F_SETPIPE_SZ, 8192);
	fcntl(a[0], F_SETFL, O_NONBLOCK);
	read(a[0], data, 10);
	close(a[0]);
	write(a[1], data, 10);
	close(a[1]);
}

static volatile int signals;

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	signals += number;
}

static void on_fault(int number)
{
	(void)number;
	_exit(7);
}

static void signal_work(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigset_t set_of, old;
	stack_t alternate = { .ss_sp = malloc(65536), .ss_size = 65536 };
	int *volatile bad = (int *)8;
	pid_t child;

	sigaltstack(&alternate, NULL);
	for (int number = SIGUSR1; number <= SIGUSR2; number += SIGUSR2 - SIGUSR1) {
		sigaction(number, &action, NULL);
		for (int i = 0; i < 20; i++)
			kill(getpid(), number);
		action.sa_flags |= SA_ONSTACK;
	}
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGRTMIN, &action, NULL);
	sigemptyset(&set_of);
	sigaddset(&set_of, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set_of, &old);
	for (int i = 0; i < 5; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i });
	sigtimedwait(&set_of, NULL, &(struct timespec){ 0, 1000000 });
	sigprocmask(SIG_SETMASK, &old, NULL);
	alarm(1);
	pause();
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	kill(child, SIGSTOP);
	waitpid(child, NULL, WUNTRACED);
	kill(child, SIGCONT);
	waitpid(child, NULL, WCONTINUED);
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	for (int kind = 0; kind < 5; kind++) {
		child = fork();
		if (child == 0) {
			struct rlimit core = { 0, 0 };

			setrlimit(RLIMIT_CORE, &core);
			signal(SIGSEGV, kind & 1 ? on_fault : SIG_DFL);
			if (kind < 2)
				*bad = 1;
			if (kind == 2)
				__asm__ volatile("ud2");
			if (kind == 3)
				__asm__ volatile("int3");
			if (kind == 4)
				__asm__ volatile("div %0" : : "r"(0) : "rax", "rdx");
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

static int deep(int n)
{
	volatile char page[4000];

	page[0] = n;
	return n ? deep(n - 1) + page[0] : 0;
}

static void memory(void)
{
	size_t size = 4 << 20;
	char *area, *more;
	pid_t child;
	int fd;

	area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < size; i += PAGE)
		area[i] = 1;
	mprotect(area + 8 * PAGE, 8 * PAGE, PROT_READ);
	mprotect(area + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE);
	madvise(area, 64 * PAGE, MADV_DONTNEED);
	madvise(area + 64 * PAGE, 64 * PAGE, MADV_FREE);
	more = mremap(area, size, 2 * size, MREMAP_MAYMOVE);
	munmap(more + size / 2, 16 * PAGE);
	child = fork(); /* copy on write */
	if (child == 0) {
		for (size_t i = 0; i < size / 2; i += PAGE)
			more[i]++;
		_exit(0);
	}
	waitpid(child, NULL, 0);
	munmap(more, 2 * size);
	area = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(area, 8 << 20, MADV_HUGEPAGE);
	for (size_t i = 0; i < 8 << 20; i += PAGE)
		area[i] = 1;
	munmap(area + PAGE, 5 << 20);
	munmap(area, 8 << 20);
	sbrk(1 << 20);
	sbrk(-(1 << 20));
	deep(100);
	for (int shared = 0; shared < 2; shared++)
		for (int tmpfs = 0; tmpfs < 2; tmpfs++) {
			const char *path = tmpfs ? "/tmp/mapped" : "/disk/mapped";

			write_file(path, 1 << 20);
			fd = open(path, O_RDWR);
			area = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE, fd, 0);
			for (size_t i = 0; i < 1 << 20; i += PAGE)
				area[i]++;
			msync(area, 1 << 20, MS_SYNC);
			munmap(area, 1 << 20);
			fsync(fd);
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
			area = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
			for (size_t i = 0; i < 1 << 20; i += 9 * PAGE)
				signals += area[i];
			munmap(area, 1 << 20);
			close(fd);
			unlink(path);
		}
	area = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fill(area, 1 << 20);
	munmap(area, 1 << 20);
}

/* Reads every file below a directory, 32 KiB of each; not those that would block or never end. */
static void read_tree(const char *path, int depth)
{
	static const char *const never[] = { "kmsg", "kcore", "tracing", "debug", "kpageflags", "kpagecount", "kpagecgroup",
					     "sysrq-trigger", "rpc_pipefs", "clear_refs", "security" };
	static char data[32768];
	char below[512];
	struct dirent *entry;
	DIR *directory = opendir(path);
	struct stat status;
	int fd;

	while (directory && (entry = readdir(directory))) {
		int skip = entry->d_name[0] == '.';

		for (unsigned i = 0; i < sizeof never / sizeof *never; i++)
			skip |= !strcmp(entry->d_name, never[i]);
		snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
		if (skip || lstat(below, &status) < 0)
			continue;
		if (S_ISLNK(status.st_mode))
			readlink(below, data, sizeof data);
		if (S_ISDIR(status.st_mode) && depth > 0)
			read_tree(below, depth - 1);
		if (!S_ISREG(status.st_mode) || !(status.st_mode & 0444))
			continue;
		fd = open(below, O_RDONLY | O_NONBLOCK);
		if (fd < 0)
			continue;
		read(fd, data, sizeof data);
		close(fd);
	}
	if (directory)
		closedir(directory);
}

static void read_proc(void)
{
	read_tree("/proc/self", 2);
	read_tree("/proc/1", 1);
	read_tree("/proc/2", 1);
	read_tree("/proc/sys", 6);
	read_tree("/proc", 1);
}

static void read_sys(void)
{
	read_tree("/sys", 12);
}

static void everyday(void)
{
	struct timespec time;
	struct rusage usage;
	char data[64];
	int fd = open("/dev/urandom", O_RDONLY);

	read(fd, data, sizeof data);
	close(fd);
	syscall(SYS_getrandom, data, sizeof data, 0);
	fd = open("/dev/zero", O_RDWR);
	read(fd, data, sizeof data);
	close(fd);
	for (int clock = 0; clock < 12; clock++) {
		syscall(SYS_clock_gettime, clock, &time);
		syscall(SYS_clock_getres, clock, &time);
	}
	nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
	getrusage(RUSAGE_CHILDREN, &usage);
	syscall(SYS_times, data);
	getppid();
	getpgid(0);
	getsid(0);
	setpriority(PRIO_PROCESS, 0, 3);
	prctl(PR_SET_NAME, "everyday");
	dup(dup2(1, 50));
	fcntl(50, F_GETFL);
	getcwd(data, sizeof data);
	syscall(SYS_gettid);
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	write(fd, "lab: console\n", 13);
	ioctl(fd, TCGETS, data);
	close(fd);
	chroot("/tmp");
}

/* ---- workload `judgement` ---- */

static struct sockaddr_storage address_of(int family, int port, socklen_t *length)
{
	struct sockaddr_storage storage = { 0 };

	storage.ss_family = family;
	if (family == AF_INET) {
		struct sockaddr_in *in = (void *)&storage;

		in->sin_port = htons(port);
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*length = sizeof *in;
	} else {
		struct sockaddr_in6 *in = (void *)&storage;

		in->sin6_port = htons(port);
		in->sin6_addr = in6addr_loopback;
		*length = sizeof *in;
	}
	return storage;
}

static void talk(int family, int protocol, int port)
{
	static char data[65536];
	socklen_t length, size = sizeof(struct tcp_info);
	struct sockaddr_storage address = address_of(family, port, &length);
	int listener = socket(family, SOCK_STREAM, protocol), one = 1, client, server, file;
	struct tcp_info info;
	pid_t child;
	off_t offset = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)&address, length) < 0 || listen(listener, 5) < 0) {
		close(listener);
		return;
	}
	child = fork();
	if (child == 0) {
		alarm(10);
		server = accept(listener, NULL, NULL);
		for (int i = 0; i < 10; i++)
			recv(server, data, 5000, i & 1 ? MSG_PEEK : 0);
		while (recv(server, data, sizeof data, 0) > 0)
			send(server, data, 10, MSG_NOSIGNAL);
		shutdown(server, SHUT_RDWR);
		_exit(0);
	}
	client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, protocol);
	setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	if (protocol != IPPROTO_SCTP) {
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3);
	}
	if (connect(client, (void *)&address, length) == 0) {
		for (int i = 1; i < 60; i++)
			send(client, data, i * 1000, i % 7 ? 0 : MSG_MORE);
		if (protocol != IPPROTO_SCTP)
			send(client, "!", 1, MSG_OOB);
		file = open("/bin/busybox", O_RDONLY);
		sendfile(client, file, &offset, 500000);
		close(file);
		getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &size);
		getsockname(client, (void *)&address, &length);
		getpeername(client, (void *)&address, &length);
		ioctl(client, FIONREAD, &one);
		shutdown(client, SHUT_WR);
		while (recv(client, data, sizeof data, 0) > 0)
			;
	}
	close(client);
	close(listener);
	waitpid(child, NULL, 0);
	/* nobody listens there */
	client = socket(family, SOCK_STREAM, 0);
	connect(client, (void *)&address, length);
	close(client);
}

static void tcp(void)
{
	talk(AF_INET, 0, 4000);
	talk(AF_INET6, 0, 4001);
	talk(AF_INET, IPPROTO_SCTP, 4002);
	talk(AF_INET6, 262 /* IPPROTO_MPTCP */, 4003);
}

static void udp(void)
{
	static char data[60000];
	const int families[] = { AF_INET, AF_INET6 };

	for (int i = 0; i < 2; i++) {
		socklen_t length;
		struct sockaddr_storage address = address_of(families[i], 5000, &length);
		int a = socket(families[i], SOCK_DGRAM, 0), b = socket(families[i], SOCK_DGRAM, 0), one = 1, raw;
		struct iovec vector = { data, 3000 };
		struct mmsghdr messages[4];

		memset(messages, 0, sizeof messages);
		bind(a, (void *)&address, length);
		setsockopt(a, SOL_SOCKET, SO_TIMESTAMP, &one, sizeof one);
		for (int size = 10; size < 40000; size *= 3) {
			sendto(b, data, size, 0, (void *)&address, length);
			recvfrom(a, data, sizeof data, MSG_DONTWAIT, NULL, NULL);
		}
		connect(b, (void *)&address, length);
		for (int m = 0; m < 4; m++)
			messages[m].msg_hdr.msg_iov = &vector, messages[m].msg_hdr.msg_iovlen = 1;
		syscall(SYS_sendmmsg, b, messages, 4, 0);
		syscall(SYS_recvmmsg, a, messages, 4, MSG_DONTWAIT, NULL);
		close(a);
		send(b, data, 10, 0);
		usleep(1000);
		send(b, data, 10, 0); /* refused */
		close(b);
		raw = socket(families[i], SOCK_RAW, i ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
		sendto(raw, "\10\0\367\377\0\0\0\0", 8, 0, (void *)&address, length);
		recv(raw, data, 100, MSG_DONTWAIT);
		close(raw);
	}
	sh("ping -c 2 127.0.0.1; ping6 -c 1 ::1; ping -c 2 10.0.2.2; arping -c 1 -I eth0 10.0.2.2; nslookup x 10.0.2.3 & sleep 1;"
	   "traceroute -m 2 -w 1 -q 1 10.0.2.2; udhcpc -n -q -t 2 -i eth0 -s /bin/true; netstat -an; netstat -r; arp -n");
}

static void unix_sockets(void)
{
	static char data[20000];
	const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/tmp/socket" };
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec vector = { data, 100 };
	int fd[2], one = 1;

	for (int i = 0; i < 3; i++) {
		struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
					  .msg_controllen = sizeof control };
		struct cmsghdr *header;
		int listener, client;

		socketpair(AF_UNIX, types[i], 0, fd);
		setsockopt(fd[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
		write(fd[0], data, 9000);
		read(fd[1], data, sizeof data);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd[0], sizeof(int));
		sendmsg(fd[0], &message, 0);
		recvmsg(fd[1], &message, 0);
		sendmsg(fd[0], &message, MSG_DONTWAIT); /* in flight when closed: the collector's work */
		close(fd[0]);
		close(fd[1]);
		unlink(address.sun_path);
		listener = socket(AF_UNIX, types[i], 0);
		bind(listener, (void *)&address, sizeof address);
		listen(listener, 3);
		client = socket(AF_UNIX, types[i], 0);
		connect(client, (void *)&address, sizeof address);
		send(client, data, 100, MSG_DONTWAIT);
		if (types[i] != SOCK_DGRAM)
			close(accept(listener, NULL, NULL));
		else
			recv(listener, data, 100, MSG_DONTWAIT);
		close(client);
		close(listener);
	}
}

static void netlink(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_protocol = htons(3), .sll_ifindex = 1 };
	struct {
		struct nlmsghdr header;
		char body[64];
	} request = { { 72, 20 /* SOCK_DIAG_BY_FAMILY */, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 }, { 0 } };
	static char data[16384];
	const struct sock_filter filter[] = { { 0x28, 0, 0, 12 }, { 0x15, 0, 1, 0x800 }, { 6, 0, 0, 65535 }, { 6, 0, 0, 0 } };
	struct sock_fprog program = { 4, (struct sock_filter *)filter };
	int uevents, diag, packet, other, tun;
	struct ifreq interface = { 0 };

	uevents = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	bind(uevents, (void *)&address, sizeof address);
	sh("echo add > /sys/class/mem/null/uevent");
	recv(uevents, data, sizeof data, MSG_DONTWAIT);
	close(uevents);
	for (int family = 1; family < 20; family++) {
		diag = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
		memset(request.body, 0, sizeof request.body);
		request.body[0] = family;
		request.body[1] = family == AF_INET || family == AF_INET6 ? IPPROTO_TCP : 0;
		memset(request.body + 4, 0xff, 8);
		send(diag, &request, 72, 0);
		while (recv(diag, data, sizeof data, MSG_DONTWAIT) > 0)
			;
		close(diag);
	}
	packet = socket(AF_PACKET, SOCK_RAW, htons(3));
	bind(packet, (void *)&link, sizeof link);
	setsockopt(packet, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
	other = socket(AF_INET, SOCK_DGRAM, 0);
	interface.ifr_flags = 0x0002 | 0x1000; /* tap, no packet information */
	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	ioctl(tun, _IOW('T', 202, int), &interface);
	sh("ip addr; ip -6 route; ip rule; ip neigh; ip link; ip -s link; ip route show table all;"
	   "ip link add dummy7 type dummy; ip addr add 10.7.0.1/24 dev dummy7; ip link set dummy7 up; ip route add 10.8.0.0/16 via 10.7.0.9;"
	   "ip rule add from 10.7.0.5 table 7; ip rule del from 10.7.0.5 table 7; ip neigh add 10.7.0.3 lladdr 1:2:3:4:5:6 dev dummy7;"
	   "ping -c 1 -W 1 10.7.0.4; ip link set dummy7 mtu 1400; ip -6 addr add fd00::7/64 dev dummy7; ip tunnel add t7 mode ipip remote 10.7.0.9;"
	   "ip link add veth7 type veth; ip link set veth7 up; ip link set veth0 up; ip link set veth1 up; brctl addbr br7; brctl addif br7 veth7;"
	   "brctl stp br7 on; ip link set br7 up; brctl show; brctl showmacs br7; vconfig add br7 7; ip link set br7.7 up; ip link set tap0 up; sleep 1;"
	   "ip addr; brctl delif br7 veth7; vconfig rem br7.7; ip link set br7 down; brctl delbr br7; ip link del veth7; ip tunnel del t7;"
	   "ip link set dummy7 down; ip link del dummy7; ifconfig lo 127.0.0.1; ifconfig -a");
	write(tun, data, 100);
	read(tun, data, sizeof data);
	close(tun);
	recv(packet, data, sizeof data, MSG_DONTWAIT);
	close(packet);
	close(other);
}

static void *wake(void *argument)
{
	usleep(2000);
	write(*(int *)argument, "12345678", 8);
	return NULL;
}

static void polling(void)
{
	struct epoll_event event = { .events = EPOLLIN }, events[8];
	struct itimerspec soon = { { 0, 3000000 }, { 0, 1000000 } };
	int fds[7], ends[2], epoll = epoll_create1(0), nested = epoll_create1(0), watch;
	pthread_t id;
	sigset_t mask;
	char data[4096];
	fd_set set_of;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	pipe(ends);
	fds[0] = ends[0];
	fds[1] = eventfd(0, EFD_NONBLOCK);
	fds[2] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	fds[3] = signalfd(-1, &mask, SFD_NONBLOCK);
	fds[4] = inotify_init1(IN_NONBLOCK);
	fds[5] = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
	fds[6] = syscall(SYS_pidfd_open, getpid(), 0);
	timerfd_settime(fds[2], 0, &soon, NULL);
	timerfd_settime(fds[5], 0, &soon, NULL);
	watch = inotify_add_watch(fds[4], "/tmp", IN_ALL_EVENTS);
	for (int i = 0; i < 7; i++) {
		event.data.fd = fds[i];
		event.events = i & 1 ? EPOLLIN | EPOLLET : EPOLLIN;
		epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
	}
	epoll_ctl(nested, EPOLL_CTL_ADD, epoll, &event);
	kill(getpid(), SIGUSR1);
	write_file("/tmp/watched", 10000);
	unlink("/tmp/watched");
	for (int round = 0; round < 6; round++) {
		int count, target = round & 1 ? ends[1] : fds[1];
		struct pollfd polled[7];

		pthread_create(&id, NULL, wake, &target);
		FD_ZERO(&set_of);
		for (int i = 0; i < 7; i++) {
			polled[i] = (struct pollfd){ fds[i], POLLIN, 0 };
			FD_SET(fds[i], &set_of);
		}
		if (round % 3 == 0)
			poll(polled, 7, 20);
		else if (round % 3 == 1)
			select(64, &set_of, NULL, NULL, &(struct timeval){ 0, 20000 });
		count = epoll_wait(round & 1 ? nested : epoll, events, 8, 20);
		for (int i = 0; i < count; i++)
			if (events[i].data.fd != epoll)
				read(events[i].data.fd, data, sizeof data);
		pthread_join(id, NULL);
	}
	epoll_ctl(epoll, EPOLL_CTL_MOD, fds[1], &event);
	epoll_ctl(epoll, EPOLL_CTL_DEL, fds[2], &event);
	inotify_rm_watch(fds[4], watch);
	for (int i = 0; i < 7; i++)
		close(fds[i]);
	close(nested);
	close(epoll);
}

static void mounts(void)
{
	int context, tree;

	sh("cd /tmp; mkdir -p m l u w o v c q; mount -t tmpfs -o size=1m,mode=700 none m; mount -o remount,ro m; touch m/x; umount m;"
	   "mount -t proc none m; umount m; mount --bind /bin m; mount --make-shared m; mount --move m l; ls l; umount l;"
	   "mount -t overlay -o lowerdir=/bin,upperdir=u,workdir=w none o; echo a > o/new; mv o/new o/newer; cat o/newer; rm o/cat; ls o;"
	   "mkdir o/dir; chmod 700 o/ls; ln o/newer o/linked; ln -s a o/sym; dd if=/bin/busybox of=o/big bs=64k; sync; umount o; rm -rf u w;"
	   "dd if=/dev/zero of=img bs=64k count=64; mkfs.vfat img; mount -o loop -t vfat img v; cp /bin/busybox v/Long_Name.bin; mkdir v/sub;"
	   "mv v/Long_Name.bin v/sub/; sync; cat v/sub/* | wc; ls -l v/sub; rm v/sub/*; rmdir v/sub; touch v/f; truncate -s 9999 v/f; df v; umount v; losetup -a;"
	   "mount -t cgroup2 none c; mount -t mqueue none q; mount -t ramfs none m; cp /bin/busybox m/; umount m;"
	   "mount -t devpts none l; umount l; mount -t debugfs none m; ls m; umount m; mount -t configfs none m; mkdir m/nullb/n; rmdir m/nullb/n; umount m; mount -t fusectl none m; umount m;"
	   "mount -t hugetlbfs none m; umount m; mount -t binfmt_misc none m;"
	   "echo ':x:M::XYZ::/bin/true:' > m/register; printf XYZ > run; chmod +x run; ./run; echo -1 > m/status; umount m; umount q; rm run img; pivot_root . .; findfs LABEL=x; blkid; fsfreeze -f /disk & sleep 0.2; fsfreeze -u /disk; mount -o remount,data_err=abort /disk");
	context = syscall(SYS_fsopen, "tmpfs", 0);
	syscall(SYS_fsconfig, context, 1, "size", "1m", 0);
	syscall(SYS_fsconfig, context, 6, NULL, NULL, 0);
	tree = syscall(SYS_fsmount, context, 0, 0);
	syscall(SYS_move_mount, tree, "", AT_FDCWD, "/tmp/m", 4);
	umount2("/tmp/m", MNT_DETACH);
	tree = syscall(SYS_open_tree, AT_FDCWD, "/tmp", 1 /* clone */);
	close(tree);
	close(context);
}

static pthread_mutex_t shared_lock;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void *contend(void *argument)
{
	for (int i = 0; i < 60; i++) {
		pthread_mutex_lock(&shared_lock);
		if (i % 8 == 0)
			usleep(100);
		pthread_mutex_unlock(&shared_lock);
	}
	return argument;
}

static void futexes(void)
{
	uint32_t word = 0;

	for (int kind = 0; kind < 3; kind++) {
		pthread_mutexattr_t attributes;
		struct timespec soon;
		pthread_t ids[4];

		pthread_mutexattr_init(&attributes);
		if (kind == 1)
			pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
		if (kind == 2) {
			pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
			pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
		}
		pthread_mutex_init(&shared_lock, &attributes);
		for (int i = 0; i < 4; i++)
			pthread_create(&ids[i], NULL, contend, NULL);
		for (int i = 0; i < 4; i++)
			pthread_join(ids[i], NULL);
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec = (soon.tv_nsec + 3000000) % 1000000000;
		pthread_mutex_lock(&shared_lock);
		pthread_cond_timedwait(&condition, &shared_lock, &soon);
		pthread_cond_broadcast(&condition);
		pthread_mutex_unlock(&shared_lock);
	}
	syscall(SYS_futex, &word, 9 /* wait bitset */, 1, NULL, NULL, 1);
	syscall(SYS_futex, &word, 3 /* requeue */, 1, 1, &word, 0);
	syscall(SYS_futex, &word, 5 /* wake op */, 1, 1, &word, 0);
	syscall(449 /* futex_waitv */, NULL, 0, 0, NULL, 0);
	syscall(SYS_membarrier, 0, 0, 0);
	syscall(SYS_membarrier, 1, 0, 0);
}

static void timers(void)
{
	struct itimerspec soon = { { 0, 2000000 }, { 0, 1000000 } };
	struct itimerval interval = { { 0, 2000 }, { 0, 1000 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	const int clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
			       CLOCK_REALTIME_ALARM, CLOCK_TAI };
	struct timeval offset = { 0, 0 };
	timer_t timer;

	signal(SIGUSR2, SIG_IGN);
	for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++)
		if (timer_create(clocks[i], &event, &timer) == 0) {
			timer_settime(timer, 0, &soon, NULL);
			for (volatile int n = 0; n < 3000000; n++)
				;
			usleep(5000);
			timer_getoverrun(timer);
			timer_gettime(timer, &soon);
			timer_delete(timer);
		}
	for (int which = 0; which < 3; which++) {
		const int numbers[] = { SIGALRM, SIGVTALRM, SIGPROF };

		signal(numbers[which], SIG_IGN);
		setitimer(which, &interval, NULL);
		for (volatile int n = 0; n < 3000000; n++)
			;
		usleep(3000);
		setitimer(which, &(struct itimerval){ 0 }, NULL);
	}
	signal(SIGALRM, SIG_DFL);
	alarm(60);
	clock_nanosleep(CLOCK_REALTIME, 0, &(struct timespec){ 0, 1000000 }, NULL);
	clock_nanosleep(CLOCK_TAI, 0, &(struct timespec){ 0, 1000000 }, NULL);
	adjtime(&offset, NULL);
	prctl(PR_SET_TIMERSLACK, 100000);
	sh("adjtimex; hwclock -r; date -s @2000000000");
}

static void splicing(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec vector = { page, PAGE };
	int a[2], b[2], from, to, pair[2];
	loff_t position = 0;

	for (int i = 0; i < 2; i++) {
		write_file(i ? "/disk/from" : "/tmp/from", 200000);
		from = open(i ? "/disk/from" : "/tmp/from", O_RDWR);
		to = open("/disk/to", O_RDWR | O_CREAT | O_TRUNC, 0600);
		pipe(a);
		pipe(b);
		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
		splice(from, &position, a[1], NULL, 20000, 0);
		tee(a[0], b[1], 10000, 0);
		splice(a[0], NULL, to, NULL, 20000, SPLICE_F_MOVE);
		splice(b[0], NULL, pair[0], NULL, 10000, SPLICE_F_MORE);
		splice(pair[1], NULL, a[1], NULL, 5000, SPLICE_F_NONBLOCK);
		vmsplice(a[1], &vector, 1, SPLICE_F_GIFT);
		splice(a[0], NULL, b[1], NULL, 3000, SPLICE_F_NONBLOCK);
		sendfile(to, from, NULL, 50000);
		sendfile(pair[0], from, NULL, 5000);
		copy_file_range(from, &position, to, NULL, 30000, 0);
		ioctl(to, 0x40049409 /* FICLONE */, from);
		readahead(from, 0, 100000);
		for (int n = 0; n < 2; n++)
			close(a[n]), close(b[n]), close(pair[n]);
		close(from);
		close(to);
	}
}

static void *ring_map(int ring, size_t size, off_t at)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, at);
}

static void ring_io(int file, char *buffer)
{
	static const int operations[] = { IORING_OP_NOP, IORING_OP_WRITE, IORING_OP_READ, IORING_OP_FSYNC, IORING_OP_TIMEOUT,
					  IORING_OP_POLL_ADD, IORING_OP_OPENAT, IORING_OP_FALLOCATE, IORING_OP_FADVISE,
					  IORING_OP_READ, IORING_OP_WRITE, IORING_OP_SEND };
	struct io_uring_params parameters = { 0 };
	int ring = syscall(SYS_io_uring_setup, 8, &parameters), ends[2];
	struct __kernel_timespec soon = { 0, 1000000 };
	struct io_uring_sqe *entries;
	char *queue;

	if (ring < 0)
		return;
	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	queue = ring_map(ring, parameters.sq_off.array + 64, IORING_OFF_SQ_RING);
	entries = ring_map(ring, 8 * sizeof *entries, IORING_OFF_SQES);
	for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++) {
		unsigned *tail = (unsigned *)(queue + parameters.sq_off.tail), index = *tail & 7;
		struct io_uring_sqe *entry = &entries[index];

		memset(entry, 0, sizeof *entry);
		entry->opcode = operations[i];
		entry->fd = file;
		entry->addr = (uintptr_t)buffer;
		entry->len = 4096;
		entry->off = (i & 3) * 4096;
		if (i >= 9)
			entry->flags = IOSQE_ASYNC;
		if (entry->opcode == IORING_OP_TIMEOUT)
			entry->addr = (uintptr_t)&soon, entry->len = 1, entry->off = 0;
		if (entry->opcode == IORING_OP_POLL_ADD)
			entry->fd = ends[0], entry->addr = 0, entry->len = 0, entry->off = 0, entry->poll32_events = POLLOUT;
		if (entry->opcode == IORING_OP_OPENAT)
			entry->fd = AT_FDCWD, entry->addr = (uintptr_t) "/tmp", entry->len = 0, entry->off = 0;
		if (entry->opcode == IORING_OP_SEND)
			entry->fd = ends[0], entry->len = 100, entry->off = 0;
		if (entry->opcode == IORING_OP_FSYNC || entry->opcode == IORING_OP_FADVISE)
			entry->addr = 0, entry->len = 0, entry->off = 0;
		((unsigned *)(queue + parameters.sq_off.array))[index] = index;
		__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
		syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
		*(unsigned *)(queue + parameters.cq_off.head) += 1;
	}
	close(ends[0]);
	close(ends[1]);
	close(ring);
}

static void direct_io(void)
{
	const char *const paths[] = { "/disk/direct", "/dev/nvme0n1", "/dev/ram0", "/dev/nullb0" };
	char *buffer = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	fill(buffer, 1 << 20);
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
		int file = open(paths[i], O_RDWR | O_DIRECT | (i ? 0 : O_CREAT), 0600);
		aio_context_t context = 0;
		struct iocb block = { .aio_fildes = file, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uintptr_t)buffer,
				      .aio_nbytes = 8192, .aio_offset = 4 << 20 };
		struct iocb *list[1] = { &block };
		struct io_event event;

		if (file < 0)
			continue;
		pwrite(file, buffer, 1 << 20, 0);
		pread(file, buffer, 1 << 19, 4096);
		pwrite(file, buffer, 4096, 100 << 12);
		syscall(SYS_io_setup, 4, &context);
		for (int n = 0; n < 3; n++) {
			block.aio_lio_opcode = n == 0 ? IOCB_CMD_PWRITE : n == 1 ? IOCB_CMD_PREAD : IOCB_CMD_FDSYNC;
			syscall(SYS_io_submit, context, 1, list);
			syscall(SYS_io_getevents, context, 1, 1, &event, &(struct timespec){ 1, 0 });
		}
		syscall(SYS_io_destroy, context);
		ring_io(file, buffer);
		fsync(file);
		ioctl(file, 0x1277 /* BLKDISCARD */, (uint64_t[]){ 64 << 20, 1 << 20 });
		close(file);
	}
	ring_io(open("/tmp/ring", O_RDWR | O_CREAT, 0600), buffer);
	sh("blockdev --getsize64 /dev/nvme0n1; blockdev --flushbufs /dev/nvme0n1; hexdump -n 64 /dev/nvme0n1; fstrim /disk");
}

static void touch_all(size_t size, int passes)
{
	char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int pass = 0; pass < passes; pass++)
		for (size_t i = 0; i < size; i += PAGE)
			area[i]++, area[i + 100] = i >> 12;
	madvise(area, 1 << 20, 21 /* MADV_PAGEOUT */);
	madvise(area + (1 << 20), 1 << 20, 20 /* MADV_COLD */);
	munmap(area, size);
}

static void reclaim(void)
{
	pid_t child;

	sh("mkswap /dev/nvme0n1; swapon /dev/nvme0n1; cat /proc/swaps; cd /tmp/c; echo +memory +pids +io +cpu > cgroup.subtree_control; mkdir -p g;"
	   "echo 16M > g/memory.max; echo 15M > g/memory.high; echo '259:0 wbps=90000000' > g/io.max; echo '10000 50000' > g/cpu.max");
	child = fork();
	if (child == 0) {
		set("/tmp/c/g/cgroup.procs", "0");
		touch_all(24 << 20, 2);
		write_file("/disk/reclaimed", 8 << 20);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	sh("cat /tmp/c/g/*; echo 0 > /tmp/c/g/memory.swap.max; echo 1 > /tmp/c/g/cgroup.freeze; echo 0 > /tmp/c/g/cgroup.freeze;"
	   "echo max > /tmp/c/g/memory.high; echo max > /tmp/c/g/cpu.max");
	child = fork();
	if (child == 0) {
		set("/tmp/c/g/cgroup.procs", "0"); /* the OOM killer's */
		touch_all(40 << 20, 1);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void swapping(void)
{
	touch_all(260 << 20, 1);
	sh("rmdir /tmp/c/g; cat /disk/reclaimed > /dev/null; echo 1 > /proc/sys/vm/drop_caches; echo 2 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory;"
	   "swapoff /dev/nvme0n1; rm /disk/reclaimed");
}

static void compressed_swap(void)
{
	pid_t child;

	sh("echo lzo-rle > /sys/block/zram0/comp_algorithm; echo 40M > /sys/block/zram0/disksize; mkswap /dev/zram0; swapon -p 5 /dev/zram0");
	child = fork();
	if (child == 0) {
		char *area = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (size_t i = 0; i < 16 << 20; i += PAGE)
			fill(area + i, 300);
		madvise(area, 16 << 20, 21);
		for (size_t i = 0; i < 16 << 20; i += PAGE)
			area[i]++;
		_exit(0);
	}
	waitpid(child, NULL, 0);
	sh("swapoff /dev/zram0; cat /sys/block/zram0/*stat; echo 1 > /sys/block/zram0/reset");
}

static void sysctls(void)
{
	sh("cd /proc/sys; for f in kernel/hostname kernel/printk kernel/pid_max kernel/threads-max kernel/sched_rt_runtime_us vm/swappiness"
	   " vm/overcommit_memory vm/min_free_kbytes vm/dirty_ratio vm/dirty_background_bytes vm/max_map_count vm/percpu_pagelist_high_fraction vm/vfs_cache_pressure"
	   " fs/file-max fs/inotify/max_user_watches net/ipv4/ip_forward net/ipv4/tcp_congestion_control net/ipv4/ip_local_port_range net/ipv4/conf/all/rp_filter"
	   " net/ipv4/tcp_rmem net/core/somaxconn net/core/rps_sock_flow_entries net/ipv6/conf/all/forwarding net/ipv6/conf/all/disable_ipv6 net/ipv4/neigh/default/gc_thresh1 kernel/core_pattern"
	   " kernel/perf_event_max_sample_rate kernel/sem kernel/shmmax kernel/randomize_va_space vm/lowmem_reserve_ratio vm/stat_interval kernel/numa_balancing kernel/watchdog kernel/yama/ptrace_scope;"
	   "do x=$(cat $f); echo \"$x\" > $f; done; echo 1 > net/ipv4/ip_forward; echo 0 > net/ipv4/ip_forward; echo 4 > vm/nr_hugepages; echo 0 > vm/nr_hugepages;"
	   "sysctl -a; sysctl -w kernel.domainname=x; echo 1 > net/ipv4/route/flush");
	sh("echo 0 > /sys/devices/system/cpu/cpu1/online; sleep 0.3; echo 1 > /sys/devices/system/cpu/cpu1/online;"
	   "echo mq-deadline > /sys/block/vda/queue/scheduler; dd if=/dev/vda of=/dev/null bs=64k count=30; echo none > /sys/block/vda/queue/scheduler;"
	   "echo kyber > /sys/block/vda/queue/scheduler; echo bfq > /sys/block/vda/queue/scheduler; echo 64 > /sys/block/vda/queue/nr_requests; echo always > /sys/kernel/mm/transparent_hugepage/enabled;"
	   "echo 1 > /sys/kernel/mm/ksm/run; echo 0 > /sys/module/printk/parameters/time; echo h > /proc/sysrq-trigger; echo m > /proc/sysrq-trigger; echo s > /proc/sysrq-trigger; echo w > /proc/sysrq-trigger;"
	   "echo hello > /dev/kmsg; dmesg | tail -n 3; echo f > /sys/class/net/lo/queues/rx-0/rps_cpus; taskset -p 1 $$; chrt; renice 5 $$; ionice -c 3 -p $$");
}

static void tracing_others(void)
{
	char data[64];
	struct iovec local = { data, 64 }, remote = { (void *)data, 64 };
	struct perf_event_attr attributes = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CPU_CLOCK,
					      .sample_period = 100000, .sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_CALLCHAIN };
	long registers[40];
	int status, counter;
	pid_t child = fork();

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		for (int i = 0; i < 5; i++)
			getppid();
		_exit(execl("/bin/busybox", "true", NULL));
	}
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
	process_vm_readv(child, &local, 1, &remote, 1, 0);
	process_vm_writev(child, &local, 1, &remote, 1, 0);
	for (int i = 0; i < 40; i++) {
		ptrace(PTRACE_GETREGS, child, 0, registers);
		ptrace(PTRACE_PEEKTEXT, child, registers[16], 0);
		ptrace(PTRACE_PEEKUSER, child, 8, 0);
		ptrace(PTRACE_POKEUSER, child, 848 + 56, 0); /* debug register 7 */
		ptrace(i < 10 ? PTRACE_SINGLESTEP : PTRACE_SYSCALL, child, 0, 0);
		if (waitpid(child, &status, 0) < 0 || WIFEXITED(status))
			break;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	counter = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
	if (counter >= 0) {
		char *ring = mmap(NULL, 9 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, counter, 0);

		for (volatile int n = 0; n < 5000000; n++)
			;
		read(counter, data, 8);
		munmap(ring, 9 * PAGE);
		close(counter);
	}
}

static void attributes(void)
{
	const char *const paths[] = { "/disk/attributes", "/tmp/attributes" };
	const unsigned char acl[] = { 2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
				      16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255 };
	static char value[5000];

	for (int i = 0; i < 2; i++) {
		write_file(paths[i], 100);
		setxattr(paths[i], "user.small", value, 20, 0);
		setxattr(paths[i], "user.large", value, 900, XATTR_CREATE);
		setxattr(paths[i], "user.large", value, 3000, XATTR_REPLACE);
		setxattr(paths[i], "trusted.one", value, 10, 0);
		setxattr(paths[i], "security.two", value, 10, 0);
		setxattr(paths[i], "system.posix_acl_access", acl, sizeof acl, 0);
		listxattr(paths[i], value, sizeof value);
		getxattr(paths[i], "user.large", value, sizeof value);
		getxattr(paths[i], "security.capability", value, sizeof value);
		getxattr(paths[i], "system.posix_acl_access", value, sizeof value);
		if (fork() == 0) { /* the list decides */
			setuid(5);
			_exit(open(paths[i], O_RDONLY) < 0);
		}
		wait(NULL);
		removexattr(paths[i], "user.small");
		removexattr(paths[i], "trusted.one");
		sh("chattr +i /disk/attributes; lsattr /disk; chattr -i /disk/attributes");
		unlink(paths[i]);
	}
}

static void keys(void)
{
	long ring = syscall(SYS_add_key, "keyring", "lab", NULL, 0, -3), key;
	char data[200];

	key = syscall(SYS_add_key, "user", "lab:one", "secret", 6, ring);
	syscall(SYS_keyctl, 11 /* read */, key, data, sizeof data);
	syscall(SYS_keyctl, 6 /* describe */, key, data, sizeof data);
	syscall(SYS_keyctl, 2 /* update */, key, "other", 5);
	syscall(SYS_keyctl, 5 /* setperm */, key, 0x3f3f0000);
	syscall(SYS_keyctl, 10 /* search */, ring, "user", "lab:one", 0);
	syscall(SYS_keyctl, 15 /* timeout */, key, 100);
	syscall(SYS_keyctl, 9 /* unlink */, key, ring);
	syscall(SYS_add_key, "logon", "lab:two", "secret", 6, ring);
	syscall(SYS_add_key, "big_key", "lab:big", data, sizeof data, ring);
	syscall(SYS_request_key, "user", "lab:missing", "callout", -3);
	syscall(SYS_keyctl, 7 /* clear */, ring);
	syscall(SYS_keyctl, 3 /* revoke */, ring);
	syscall(SYS_keyctl, 1 /* join */, "session");
	sh("cat /proc/keys /proc/key-users");
}

static void ipc(void)
{
	struct mq_attr limits = { .mq_maxmsg = 4, .mq_msgsize = 64 };
	struct sembuf down = { 0, -1, IPC_NOWAIT | SEM_UNDO }, up = { 0, 1, SEM_UNDO };
	struct { long type; char text[100]; } message = { 1, "text" };
	int shared = shmget(IPC_PRIVATE, 65536, IPC_CREAT | 0600), semaphore = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
	int queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600), memfd;
	char *area = shmat(shared, NULL, 0), data[64];
	mqd_t posix;

	fill(area, 65536);
	shmctl(shared, IPC_RMID, NULL);
	shmdt(area);
	semop(semaphore, &up, 1);
	semop(semaphore, &down, 1);
	semop(semaphore, &down, 1);
	semctl(semaphore, 0, SETVAL, 3);
	semctl(semaphore, 0, IPC_RMID);
	msgsnd(queue, &message, 100, 0);
	msgrcv(queue, &message, 100, 0, IPC_NOWAIT);
	msgctl(queue, IPC_RMID, NULL);
	posix = mq_open("/lab", O_CREAT | O_RDWR, 0600, &limits);
	mq_send(posix, "x", 1, 3);
	mq_receive(posix, data, sizeof data, NULL);
	mq_timedreceive(posix, data, sizeof data, NULL, &(struct timespec){ 1, 0 });
	mq_close(posix);
	mq_unlink("/lab");
	memfd = memfd_create("lab", MFD_ALLOW_SEALING);
	ftruncate(memfd, 100000);
	fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK);
	ftruncate(memfd, 10);
	close(memfd);
	sh("cat /proc/sysvipc/*");
}

static void spaces(void)
{
	const int kinds[] = { CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWCGROUP, 0x80 };
	struct sock_filter filter[] = { { 0x20, 0, 0, 0 }, { 0x15, 0, 1, SYS_getppid }, { 6, 0, 0, 0x50001 }, { 6, 0, 0, 0x7fff0000 } };
	struct sock_fprog program = { 4, filter };

	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		pid_t child = fork();

		if (child == 0) {
			if (unshare(kinds[i]) == 0) {
				sethostname("other", 5);
				sh("ip link set lo up; ping -c 1 127.0.0.1; mount -t tmpfs none /tmp; id; hostname; ls /proc/self/ns");
			}
			setns(open("/proc/1/ns/uts", O_RDONLY), 0);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	if (fork() == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
		getppid();
		syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, NULL);
		setgid(3);
		setuid(3);
		sh("id; ls /root; kill -9 1; cat /proc/kallsyms | head");
		_exit(0);
	}
	wait(NULL);
}

static void terminals(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
	struct termios settings;
	char name[64], data[256];

	mkdir("/dev/pts", 0755);
	mount("devpts", "/dev/pts", "devpts", 0, NULL);
	if (master < 0)
		master = posix_openpt(O_RDWR | O_NOCTTY);
	grantpt(master);
	unlockpt(master);
	if (ptsname_r(master, name, sizeof name))
		return;
	setsid();
	slave = open(name, O_RDWR);
	ioctl(slave, TIOCSCTTY, 0);
	write(master, "line\n\x03", 6);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	tcgetattr(slave, &settings);
	write(master, "text\n", 5);
	read(slave, data, sizeof data);
	cfmakeraw(&settings);
	tcsetattr(slave, TCSADRAIN, &settings);
	write(slave, "output\n", 7);
	read(master, data, sizeof data);
	ioctl(master, TIOCSWINSZ, &(struct winsize){ 25, 80, 0, 0 });
	ioctl(slave, TCFLSH, 2);
	tcsendbreak(slave, 0);
	close(slave);
	close(master);
}

static void fault_handler(int fd, char *source)
{
	struct uffd_msg message;
	struct pollfd polled = { fd, POLLIN, 0 };

	while (poll(&polled, 1, 500) > 0 && read(fd, &message, sizeof message) > 0) {
		struct uffdio_copy copy = { .dst = message.arg.pagefault.address & ~4095ull, .src = (uintptr_t)source, .len = PAGE };

		ioctl(fd, UFFDIO_COPY, &copy);
	}
}

static void *fault_thread(void *argument)
{
	static char source[PAGE] __attribute__((aligned(4096)));

	fault_handler(*(int *)argument, source);
	return NULL;
}

static void unusual_memory(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_NONBLOCK);
	char *area = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *huge;
	unsigned char present[64];
	pthread_t id;

	if (fd >= 0) {
		ioctl(fd, UFFDIO_API, &api);
		range.range.start = (uintptr_t)area;
		range.range.len = 64 * PAGE;
		ioctl(fd, UFFDIO_REGISTER, &range);
		pthread_create(&id, NULL, fault_thread, &fd);
		for (int i = 0; i < 8; i++)
			area[i * PAGE] = 1;
		pthread_join(id, NULL);
		close(fd);
	}
	for (size_t i = 1 << 20; i < 2 << 20; i += PAGE)
		memset(area + i, 7, PAGE);
	madvise(area + (1 << 20), 1 << 20, MADV_MERGEABLE);
	usleep(200000);
	madvise(area + (1 << 20), 1 << 20, MADV_UNMERGEABLE);
	mlock(area + (2 << 20), 1 << 20);
	mincore(area + (2 << 20), 64 * PAGE, present);
	munlock(area + (2 << 20), 1 << 20);
	mlockall(MCL_CURRENT | MCL_ONFAULT);
	munlockall();
	syscall(SYS_mbind, area, 1 << 20, 0, NULL, 0, 0);
	syscall(SYS_move_pages, 0, 1, &area, NULL, present, 0);
	syscall(SYS_set_mempolicy, 0, NULL, 0);
	syscall(SYS_pkey_mprotect, area, PAGE, PROT_READ, syscall(SYS_pkey_alloc, 0, 0));
	set("/proc/sys/vm/nr_hugepages", "6");
	huge = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge != MAP_FAILED) {
		huge[0] = 1;
		if (fork() == 0) {
			huge[0] = huge[2 << 20] = 2;
			_exit(0);
		}
		wait(NULL);
		munmap(huge, 4 << 20);
	}
	set("/proc/sys/vm/nr_hugepages", "0");
	remap_file_pages(area, PAGE, 0, 0, 0);
	sh("cat /proc/self/smaps /proc/self/numa_maps; echo 1 > /proc/self/clear_refs");
}

static void scheduling(void)
{
	struct sched_param priority = { .sched_priority = 5 };
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } deadline =
		{ 48, 6, 0, 0, 0, 1000000, 10000000, 10000000 };
	cpu_set_t cpus;

	sched_setscheduler(0, SCHED_RR, &priority);
	for (volatile int n = 0; n < 1000000; n++)
		;
	sched_rr_get_interval(0, &(struct timespec){ 0 });
	for (int i = 0; i < 10; i++) {
		CPU_ZERO(&cpus);
		CPU_SET(i & 1, &cpus);
		sched_setaffinity(0, sizeof cpus, &cpus);
		sched_yield();
	}
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
	sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ 0 });
	CPU_SET(0, &cpus);
	CPU_SET(1, &cpus);
	sched_setaffinity(0, sizeof cpus, &cpus);
	if (syscall(SYS_sched_setattr, 0, &deadline, 0) == 0)
		for (int i = 0; i < 5; i++) {
			for (volatile int n = 0; n < 1000000; n++)
				;
			sched_yield();
		}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_DUMPABLE, 0);
	syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 4);
	syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1);
	syscall(SYS_unshare, CLONE_FILES | CLONE_FS);
	sh("cat /proc/self/sched /proc/schedstat /proc/self/stat /proc/loadavg; top -b -n 1");
}

static void watching(void)
{
	struct file_handle *handle = malloc(sizeof *handle + 128);
	int group = syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY), mount_id, fd, lease;
	static char data[8192];
	struct flock lock = { .l_type = F_WRLCK, .l_len = 100 };

	syscall(SYS_fanotify_mark, group, FAN_MARK_ADD | FAN_MARK_MOUNT, (uint64_t)(FAN_OPEN | FAN_MODIFY | FAN_CLOSE), AT_FDCWD, "/disk");
	write_file("/disk/watched", 5000);
	read(group, data, sizeof data);
	close(group);
	handle->handle_bytes = 128;
	name_to_handle_at(AT_FDCWD, "/disk/watched", handle, &mount_id, 0);
	fd = open("/disk", O_RDONLY);
	close(open_by_handle_at(fd, handle, O_RDONLY));
	fcntl(fd, F_NOTIFY, DN_MODIFY);
	signal(SIGIO, SIG_IGN);
	close(fd);
	fd = open("/disk/watched", O_RDWR);
	fcntl(fd, F_SETLK, &lock);
	fcntl(fd, F_OFD_GETLK, &lock);
	if (fork() == 0) {
		alarm(1);
		fcntl(open("/disk/watched", O_RDWR), F_SETLKW, &lock);
		_exit(0);
	}
	usleep(20000);
	close(fd);
	wait(NULL);
	lease = open("/disk/watched", O_RDONLY);
	fcntl(lease, F_SETLEASE, F_RDLCK);
	close(open("/disk/watched", O_WRONLY | O_NONBLOCK));
	close(lease);
	syscall(SYS_statx, AT_FDCWD, "/disk/watched", 0, 0xfff, data);
	syscall(SYS_renameat2, AT_FDCWD, "/disk/watched", AT_FDCWD, "/disk", 2);
	syscall(SYS_openat2, AT_FDCWD, "/disk/watched", (uint64_t[]){ O_RDONLY, 0, 8 }, 24);
	unlink("/disk/watched");
	klogctl(3, data, sizeof data);
}

static void ciphers(void)
{
	struct sockaddr_alg hash = { .salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256" };
	const char *const names[] = { "sha256", "hmac(sha1)", "md5", "crc32c", "cbc(aes)", "ctr(aes)", "ecb(cipher_null)" };
	int fd, operation, vsock;
	char data[256];
	struct { uint16_t family, zero; uint32_t port, cid; char more[4]; } local = { 40, 0, 9000, 1, "" };

	for (int i = 0; i < 7; i++) {
		strcpy((char *)hash.salg_type, i < 4 ? "hash" : "skcipher");
		strcpy((char *)hash.salg_name, names[i]);
		fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
		if (bind(fd, (void *)&hash, sizeof hash) < 0) {
			close(fd);
			continue;
		}
		setsockopt(fd, SOL_ALG, ALG_SET_KEY, "0123456789abcdef", 16);
		operation = accept(fd, NULL, NULL);
		send(operation, data, 160, MSG_MORE);
		send(operation, data, 96, 0);
		recv(operation, data, 160, MSG_DONTWAIT);
		close(operation);
		close(fd);
	}
	vsock = socket(40, SOCK_STREAM, 0);
	bind(vsock, (void *)&local, sizeof local);
	listen(vsock, 2);
	fd = socket(40, SOCK_STREAM, 0);
	connect(fd, (void *)&local, sizeof local);
	operation = accept4(vsock, NULL, NULL, SOCK_NONBLOCK);
	write(fd, data, 100);
	usleep(2000);
	read(operation, data, sizeof data);
	close(fd);
	close(operation);
	close(vsock);
	fd = open("/dev/random", O_RDWR);
	write(fd, data, 64);
	ioctl(fd, 0x80045200 /* RNDGETENTCNT */, data);
	close(fd);
}

static void programs(void)
{
	struct bpf_insn instructions[] = {
		{ 0xb7, 0, 0, 0, 1 }, /* r0 = 1 */
		{ 0x95, 0, 0, 0, 0 }, /* exit */
	};
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 8, .max_entries = 16 }, element, program;
	uint64_t key = 1, value = 2;
	int fd = syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map), ends[2];

	memset(&element, 0, sizeof element);
	element.map_fd = fd;
	element.key = (uintptr_t)&key;
	element.value = (uintptr_t)&value;
	syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &element, sizeof element);
	syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &element, sizeof element);
	syscall(SYS_bpf, BPF_MAP_DELETE_ELEM, &element, sizeof element);
	close(fd);
	memset(&program, 0, sizeof program);
	program.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	program.insns = (uintptr_t)instructions;
	program.insn_cnt = 2;
	program.license = (uintptr_t) "GPL";
	fd = syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof program);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
	setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd);
	write(ends[0], "packet", 6);
	read(ends[1], &value, 8);
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

/* ---- main ---- */

static const struct {
	const char *group, *name;
	void (*function)(void);
	int once; /* in the first round alone: it takes long */
} steps[] = {
	{ "development", "processes", processes, 0 },
	{ "development", "threads", threads, 0 },
	{ "development", "files", files, 0 },
	{ "development", "shell_files", shell_files, 0 },
	{ "development", "pipes", pipes, 0 },
	{ "development", "signals", signal_work, 0 },
	{ "development", "memory", memory, 0 },
	{ "development", "read_proc", read_proc, 0 },
	{ "development", "read_sys", read_sys, 1 },
	{ "development", "everyday", everyday, 0 },
	{ "judgement", "tcp", tcp, 0 },
	{ "judgement", "udp", udp, 0 },
	{ "judgement", "unix_sockets", unix_sockets, 0 },
	{ "judgement", "netlink", netlink, 0 },
	{ "judgement", "polling", polling, 0 },
	{ "judgement", "mounts", mounts, 0 },
	{ "judgement", "futexes", futexes, 0 },
	{ "judgement", "timers", timers, 0 },
	{ "judgement", "splicing", splicing, 0 },
	{ "judgement", "direct_io", direct_io, 0 },
	{ "judgement", "reclaim", reclaim, 0 },
	{ "judgement", "swapping", swapping, 0 },
	{ "judgement", "compressed_swap", compressed_swap, 0 },
	{ "judgement", "sysctls", sysctls, 0 },
	{ "judgement", "tracing_others", tracing_others, 0 },
	{ "judgement", "attributes", attributes, 0 },
	{ "judgement", "keys", keys, 0 },
	{ "judgement", "ipc", ipc, 0 },
	{ "judgement", "spaces", spaces, 0 },
	{ "judgement", "terminals", terminals, 0 },
	{ "judgement", "unusual_memory", unusual_memory, 0 },
	{ "judgement", "scheduling", scheduling, 0 },
	{ "judgement", "watching", watching, 0 },
	{ "judgement", "ciphers", ciphers, 0 },
	{ "judgement", "programs", programs, 0 },
};

static char command_line[4096];

/* The value of a word of the command line, or NULL. */
static const char *word(const char *name)
{
	const char *at = command_line;
	size_t length = strlen(name);

	while ((at = strstr(at, name))) {
		if ((at == command_line || at[-1] == ' ') && at[length] == '=')
			return at + length + 1;
		at += length;
	}
	return NULL;
}

static int listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (; *list && *list != ' '; list += *list == ',') {
		size_t here = strcspn(list, ", \n");

		if (here == length && !strncmp(list, name, length))
			return 1;
		list += here;
		if (*list != ',')
			break;
	}
	return 0;
}

static int chosen(int number)
{
	const char *list = word("stackfit.steps");

	return !list || listed(list, steps[number].group) || listed(list, steps[number].name);
}

static int any_of(const char *group)
{
	for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++)
		if (!strcmp(steps[i].group, group) && chosen(i))
			return 1;
	return 0;
}

static void one_round(int number)
{
	int judging = any_of("judgement");
	static int staying;

	if (judging && !staying) {
		staying = 1;
		modules_of("stay", 1);
	}
	if (judging)
		modules_of("cycle", 1);
	for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++)
		if (chosen(i) && (number == 0 || !steps[i].once))
			step(steps[i].name, steps[i].function);
	if (judging)
		modules_of("cycle", 0);
}

static void start_recording(void)
{
	char text[32];

	recorder = mmap(NULL, sizeof *recorder, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (recorder == MAP_FAILED)
		stop("memory");
	recorder->epoch = 1; /* 0 is what came before */
	sleep(1); /* what the workloads before have left to do in the background */
	set(TRACEFS "tracing_on", "0");
	set(TRACEFS "buffer_size_kb", sizeof(long) == 8 ? "20480" : "8192");
	reader_pid = fork();
	if (reader_pid == 0) {
		while (!recorder->ready)
			usleep(50000);
		reader();
		_exit(0);
	}
	snprintf(text, sizeof text, "%d", reader_pid);
	set(TRACEFS "set_ftrace_notrace_pid", text);
	/*
	 * The tracer comes after the pid, which would change the call in ftrace's trampoline while all
	 * functions use it, those that handle its breakpoint included; and before the reader opens the
	 * buffer, which refuses another tracer.
	 */
	if (set(TRACEFS "current_tracer", "function") < 0)
		stop("this kernel has no function tracer");
	printf("lab: function tracer on\n");
	recorder->ready = 1;
	while (!recorder->reading)
		usleep(50000);
	tracing_on_fd = open(TRACEFS "tracing_on", O_WRONLY);
}

static void write_pairs(double start)
{
	unsigned long used = 0;

	trace_off();
	kill(reader_pid, SIGKILL);
	waitpid(reader_pid, NULL, 0);
	set(TRACEFS "current_tracer", "nop");
	printf("lab: recorded\n");
	fprintf(out, "# seconds %.0f\n# events %lu\n# pages %lu\n# others %lu\n# lost %lu\n# distinct %lu\n", now() - start,
		recorder->events, recorder->pages, recorder->others, recorder->lost, recorder->distinct);
	for (unsigned i = 0; i < SLOTS; i++)
		if (recorder->pairs[i].used) {
			struct pair *pair = &recorder->pairs[i];

			fprintf(out, "P %x %lx %lx\n", pair->epoch, pair->back, pair->callee);
			used++;
		}
	copy_text("file", "/events/ftrace/function/format", TRACEFS "events/ftrace/function/format");
	printf("lab: %lu events, %lu pairs, %lu pages after a loss\n", recorder->events, used, recorder->lost);
}

static void send_out(void)
{
	struct termios settings;
	int port = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	ssize_t got;

	copy_text("file", "/proc/version", "/proc/version");
	copy_text("file", "/proc/cmdline", "/proc/cmdline");
	copy_text("file", "/proc/modules", "/proc/modules");
	copy_text("file", "/stext", "/stext");
	fprintf(out, "@@ end of recording\n");
	fclose(out);
	if (port < 0 || tcgetattr(port, &settings) < 0)
		stop("the second serial port");
	cfmakeraw(&settings);
	tcsetattr(port, TCSANOW, &settings);
	for (size_t done = 0; done < out_size; done += got)
		if ((got = write(port, out_text + done, out_size - done)) <= 0)
			stop("output");
	tcdrain(port);
	if (marks) {
		printf("lab: dump\n");
		for (;;)
			pause();
	}
	printf("lab: done\n");
	sync();
	reboot(RB_AUTOBOOT);
}

static void find_kernel(void)
{
	char line[256], name[64], kind;
	unsigned long address;
	FILE *file = fopen("/proc/kallsyms", "r"), *kept = fopen("/stext", "w");

	while (file && kept && fgets(line, sizeof line, file)) {
		if (sscanf(line, "%lx %c %63s", &address, &kind, name) != 3 || strchr(line, '['))
			continue;
		if (!strcmp(name, "_stext"))
			kernel_first = address;
		else if (!strcmp(name, "_etext"))
			kernel_end = address;
		else
			continue;
		fputs(line, kept);
	}
	if (file)
		fclose(file);
	if (kept)
		fclose(kept);
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		printf("lab: lo: %s\n", strerror(errno));
	close(fd);
}

/* File systems on the disk and on a file of it, if the kernel has what it takes; the network. */
static void prepare(void)
{
	mkdir("/disk", 0755);
	mkdir("/loop", 0755);
	if (mount("/dev/vda", "/disk", "ext4", 0, NULL) < 0) {
		printf("lab: no ext4 on /dev/vda: %s\n", strerror(errno));
		mount("tmpfs", "/disk", "tmpfs", 0, "size=40m");
	}
	if (any_of("development")) {
		write_file("/disk/image", 24 << 20);
		sh("mke2fs -F /disk/image && mount -o loop -t ext4 /disk/image /loop");
	}
	loopback_up();
	sh("ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up");
}

int main(void)
{
	const char *seconds;
	double start, limit;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, "size=60m");
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	setenv("PATH", "/bin:/sbin", 1);
	read(open("/proc/cmdline", O_RDONLY), command_line, sizeof command_line - 1);
	seconds = word("stackfit.seconds");
	limit = seconds ? atof(seconds) : 0;
	printf("lab: booted\n");
	sh("/bin/busybox --install -s /bin");
	find_kernel();
	out = open_memstream(&out_text, &out_size);
	modules_of("boot", 1);
	prepare();
	if (word("stackfit.marks")) {
		marks = 1;
		one_round(0);
	}
	if (word("stackfit.stacks")) {
		copy_text("stack", "boot", TRACEFS "stack_trace");
		stacks = 1;
		one_round(0);
		stacks = 0;
		set("/proc/sys/kernel/stack_tracer_enabled", "0");
	}
	if (word("stackfit.edges")) {
		start_recording();
		tracing = 1;
		start = now();
		trace_on();
		for (int round = 0; round == 0 || now() - start < limit; round++)
			one_round(round);
		write_pairs(start);
	}
	send_out();
	for (;;)
		pause();
}
