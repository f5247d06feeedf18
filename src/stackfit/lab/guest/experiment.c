/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init of the experiment: brings memory into a state, then makes children that only wait until memory gives out,
 * or runs another load.  Static, i386, no libc: every page and every system call it uses is visible here.
 *
 * Words on the kernel command line (the kernel hands them over as environment):
 *   load=fork|cycle|storm|overflow   what is done after the state is reached (default fork)
 *   state=fresh|anon|ramfs|cache|locked   memory before the first child (default fresh)
 *   kind=process|thread|none children: fork, or clone with CLONE_VM|FS|FILES|SIGHAND
 *   leave=KB                 free memory at which filling stops before holes are made (1024)
 *   rounds=N pages=N         state=cache, load=cycle: page cache comes and goes so often, so many pages each time
 *   touch=KB                 state=locked: so much is touched, every second page freed, the rest locked
 *   ballast=KB               first take memory until no more than KB are free (0: do not)
 *   every=N                  print meminfo, slabinfo, buddyinfo and vmstat every N children (50)
 *   limit=N                  stop after N children (0: when memory gives out)
 *   trace=N                  after N children trace the allocator under 4 more of each kind
 *   boost=N aslr=N threads=N vm.watermark_boost_factor (0), kernel.randomize_va_space (0), kernel.threads-max
 *                            (30000; boost and threads: "default" leaves what the kernel has chosen)
 *   repeat=N                 first N times 7 children that end at once: no two repetitions are in the same state
 *   read=N                   read N pages of the disk and print how long each took
 *   load=cycle: anon=KB      so much anonymous memory is taken, then page cache until `leave` KB are free
 *               alive=N forks=N use=N   so many children at a time; so many are made, one goes for each that comes;
 *                            before each, so many pages are used at random
 *               events=N     reclaim, scheduling and the disk are traced while the last N children are made, and
 *                            the trace is printed
 *   load=storm: seconds=N    network, timers, files, swap at once for so long
 *   load=overflow: the modules /chain.ko and /overflow.ko are loaded, the latter with context= and levels=
 *
 * /dev/vda is a disk to read (load=storm: an ext4 file system), /dev/vdb is swap where there is one.
 *
 * The first invocation of the OOM killer panics (vm.panic_on_oom): the kernel's own
 * report then names order, flags and call chain of the allocation that failed, free
 * blocks by order, and every process (one line each).
 *
 * A child is as cheap as a program can be: three page tables (text and data, mappings,
 * stack) and one copied page: the parent writes its stack page after every fork, gets
 * a copy, and leaves the old page to the child.  The child touches nothing itself, so
 * whatever it costs is spent when fork returns.
 *
 * Latencies ("@@ latency" lines) are differences of the time stamp counter; under QEMU's -icount it counts
 * nanoseconds of the guest's time.
 */

typedef unsigned long ulong;
typedef unsigned long long u64;

enum {
	SYS_exit = 1, SYS_read = 3, SYS_write = 4, SYS_open = 5, SYS_close = 6, SYS_unlink = 10, SYS_lseek = 19,
	SYS_mount = 21, SYS_pause = 29, SYS_sync = 36, SYS_kill = 37, SYS_swapon = 87, SYS_reboot = 88,
	SYS_munmap = 91, SYS_wait4 = 114, SYS_sysinfo = 116, SYS_fsync = 118, SYS_clone = 120, SYS_mlock = 150,
	SYS_pread64 = 180, SYS_mmap2 = 192, SYS_madvise = 219, SYS_fadvise64 = 250,
	SYS_finit_module = 350, SYS_socket = 359, SYS_bind = 361, SYS_connect = 362, SYS_sendto = 369,
	SYS_recvfrom = 371, SYS_clock_nanosleep = 407,
};

enum { PAGE = 4096, BUFFER = 8 * PAGE, RDONLY = 0, WRONLY = 1, RDWR = 2, CREAT = 0100 };
enum { SIGKILL = 9, SIGCHLD = 17, SHARE_ALL = 0x100 | 0x200 | 0x400 | 0x800 }; /* CLONE_VM|FS|FILES|SIGHAND */
enum { READ_WRITE = 3, PRIVATE_ANON = 0x22, NORESERVE = 0x4000, DONTNEED = 4, DONTFORK = 10 };

static char **environment; /* written once, so that the data page has an anonymous page */

static long call(long n, long a, long b, long c, long d, long e)
{
	long result;

	asm volatile("int $0x80" : "=a"(result)
		     : "0"(n), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
	return result;
}

#define call0(n) call(n, 0, 0, 0, 0, 0)
#define call1(n, a) call(n, (long)(a), 0, 0, 0, 0)
#define call2(n, a, b) call(n, (long)(a), (long)(b), 0, 0, 0)
#define call3(n, a, b, c) call(n, (long)(a), (long)(b), (long)(c), 0, 0)
#define call5(n, a, b, c, d, e) call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* mmap2 takes six arguments; the sixth, in ebp, is the offset: 0. */
static char *map(ulong length)
{
	long result;

	asm volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp" : "=a"(result)
		     : "0"(SYS_mmap2), "b"(0), "c"(length), "d"(READ_WRITE),
		       "S"(PRIVATE_ANON | NORESERVE), "D"(-1) : "memory");
	return (char *)result;
}

static long map_file(long fd, ulong length)
{
	long result;

	asm volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp" : "=a"(result)
		     : "0"(SYS_mmap2), "b"(0), "c"(length), "d"(1), "S"(1), "D"(fd) : "memory");
	return result;
}

/* Makes a child that waits for ever; the child uses neither stack nor data. */
static long child(ulong flags)
{
	long result;

	asm volatile("int $0x80\n\t"
		     "test %%eax, %%eax\n\t"
		     "jnz 2f\n"
		     "1:\tmov %6, %%eax\n\t"
		     "int $0x80\n\t"
		     "jmp 1b\n"
		     "2:"
		     : "=a"(result)
		     : "0"(SYS_clone), "b"(flags | SIGCHLD), "c"(0), "d"(0), "S"(0), "i"(SYS_pause)
		     : "memory", "cc");
	return result;
}

/* By the monotonic clock, 64-bit time: these kernels have no system calls for another. */
static void rest(ulong seconds, ulong nanoseconds)
{
	u64 time[2] = { seconds, nanoseconds };

	call(SYS_clock_nanosleep, 1, 0, (long)time, 0, 0);
}

static ulong length(const char *s)
{
	ulong n = 0;

	while (s[n])
		n++;
	return n;
}

static void put(const char *s) { call3(SYS_write, 1, s, length(s)); }

static char *decimal(char *end, u64 value)
{
	unsigned high = value >> 32, low = value;

	*--end = 0;
	do { /* 64 by 32 bits without libgcc */
		unsigned rest = high % 10, digit;

		high /= 10;
		asm("divl %4" : "=a"(low), "=d"(digit) : "0"(low), "1"(rest), "r"(10));
		*--end = '0' + digit;
	} while (high | low);
	return end;
}

static void put_number(u64 value)
{
	char text[24];

	put(decimal(text + sizeof text, value));
}

static const char *parameter(const char *name)
{
	for (char **entry = environment; *entry; entry++) {
		const char *s = *entry, *n = name;

		while (*n && *s == *n)
			s++, n++;
		if (!*n && *s == '=')
			return s + 1;
	}
	return "";
}

static ulong number(const char *name, ulong otherwise)
{
	const char *s = parameter(name);
	ulong value = 0;

	if (!*s)
		return otherwise;
	while (*s >= '0' && *s <= '9')
		value = value * 10 + (*s++ - '0');
	return value;
}

static void set(const char *path, const char *value)
{
	long fd = call2(SYS_open, path, WRONLY);

	if (fd < 0 || call3(SYS_write, fd, value, length(value)) < 0) {
		put("init: cannot set ");
		put(path);
		put("\n");
	}
	if (fd >= 0)
		call1(SYS_close, fd);
}

/* Copies a text file to the console between two marker lines. */
static void show(const char *path, const char *mark, ulong n, char *buffer)
{
	long fd = call2(SYS_open, path, RDONLY), got;

	if (fd < 0)
		return;
	put("@@ ");
	put(mark);
	put(" ");
	put_number(n);
	put(" ");
	put(path);
	put("\n");
	while ((got = call3(SYS_read, fd, buffer, BUFFER)) > 0)
		call3(SYS_write, 1, buffer, got);
	put("@@ end\n");
	call1(SYS_close, fd);
}

/* /proc/kpageflags as lines "first-pfn pages flags", one a run of equal flags. */
static void show_page_flags(const char *mark, ulong n, char *buffer)
{
	long fd = call2(SYS_open, "/proc/kpageflags", RDONLY), got;
	ulong pfn = 0, start = 0;
	u64 current = 0, *flags = (u64 *)buffer;

	put("@@ ");
	put(mark);
	put(" ");
	put_number(n);
	put(" /proc/kpageflags\n");
	for (;;) {
		got = call3(SYS_read, fd, buffer, PAGE);
		for (long i = 0; i < got / 8 || (got <= 0 && i == 0); i++) {
			if (got > 0 && flags[i] == current && pfn > start) {
				pfn++;
				continue;
			}
			if (pfn > start) {
				put_number(start);
				put(" ");
				put_number(pfn - start);
				put(" ");
				put_number(current);
				put("\n");
			}
			start = pfn;
			if (got > 0) {
				current = flags[i];
				pfn++;
			}
		}
		if (got <= 0)
			break;
	}
	put("@@ end\n");
	call1(SYS_close, fd);
}

static ulong free_kb(void)
{
	struct {
		long uptime;
		ulong loads[3], total, free, shared, buffers, total_swap, free_swap;
		unsigned short processes, pad;
		ulong total_high, free_high;
		unsigned unit;
		char rest[8];
	} info;

	call1(SYS_sysinfo, &info);
	return info.free / 1024 * info.unit;
}

/* Takes anonymous pages, which children do not inherit, until `leave` kB are free. */
static ulong take(char *memory, ulong leave)
{
	ulong pages = 0;

	while (free_kb() > leave)
		memory[pages++ * PAGE] = 1;
	return pages;
}

static char *unshared(ulong bytes)
{
	char *memory = map(bytes);

	call3(SYS_madvise, memory, bytes, DONTFORK);
	return memory;
}

static void anonymous_holes(ulong leave)
{
	char *memory = unshared(512ul << 20);
	ulong pages = take(memory, leave);

	for (ulong i = 1; i < pages; i += 2)
		call3(SYS_madvise, memory + i * PAGE, PAGE, DONTNEED);
}

/* As anonymous_holes, of a given size, and out of reclaim's and compaction's reach. */
static void locked_holes(ulong pages)
{
	char *memory = unshared(pages * PAGE);

	set("/proc/sys/vm/compact_unevictable_allowed", "0");
	for (ulong i = 0; i < pages; i++)
		memory[i * PAGE] = 1;
	for (ulong i = 0; i < pages; i++)
		if (i % 2)
			call3(SYS_madvise, memory + i * PAGE, PAGE, DONTNEED);
		else
			call2(SYS_mlock, memory + i * PAGE, PAGE);
}

static void ramfs_holes(ulong leave, char *buffer)
{
	long kept, removed;

	call5(SYS_mount, "ramfs", "/mnt", "ramfs", 0, 0);
	kept = call3(SYS_open, "/mnt/kept", WRONLY | CREAT, 0600);
	removed = call3(SYS_open, "/mnt/removed", WRONLY | CREAT, 0600);
	while (free_kb() > leave) {
		call3(SYS_write, kept, buffer, PAGE);
		call3(SYS_write, removed, buffer, PAGE);
	}
	call1(SYS_close, removed);
	call1(SYS_unlink, "/mnt/removed");
	call1(SYS_close, kept);
}

static unsigned next_random(unsigned *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

enum { FADVISE_RANDOM = 1, FADVISE_DONTNEED = 4 };

static long open_disk(void)
{
	long disk = call2(SYS_open, "/dev/vda", RDONLY);

	call5(SYS_fadvise64, disk, 0, 0, 0, FADVISE_RANDOM); /* no readahead: a page is a page */
	return disk;
}

/* Uses a page of the disk; it comes into the page cache where it is not there. */
static void read_page(long disk, ulong page, char *buffer)
{
	call5(SYS_pread64, disk, buffer, 512, page * PAGE, 0);
}

static void forget_page(long disk, ulong page)
{
	call5(SYS_fadvise64, disk, page * PAGE, 0, PAGE, FADVISE_DONTNEED);
}

static u64 ticks(void)
{
	unsigned low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

/* Latencies are kept until there are so many, then printed. */
enum { KEPT = 50 };

static void show_latencies(const char *mark, unsigned *kept, ulong number)
{
	put(mark);
	for (ulong i = 0; i < number; i++) {
		put(" ");
		put_number(kept[i]);
	}
	put("\n");
}

/* Reads the disk into the page cache until `leave` kB are free; pages read.  `timed`: of so many the time is printed. */
static ulong fill_cache(long disk, ulong leave, ulong timed, char *buffer)
{
	unsigned *kept = (unsigned *)(buffer + PAGE);
	ulong pages = 0;

	while (free_kb() > leave) {
		u64 before = ticks();

		read_page(disk, pages, buffer);
		kept[pages % KEPT] = ticks() - before;
		if (++pages % KEPT == 0 && pages <= timed)
			show_latencies("@@ disk", kept, KEPT);
	}
	return pages;
}

/* Of the first `held` pages of the disk some go, at random, and come back: to other places in memory. */
static void churn_cache(long disk, ulong held, ulong rounds, ulong each, char *buffer)
{
	ulong *gone = (ulong *)(buffer + PAGE);
	unsigned random = 1;

	for (ulong round = 0; round < rounds; round++) {
		for (ulong i = 0; i < each; i++)
			forget_page(disk, gone[i] = next_random(&random) % held);
		for (ulong i = each; i-- > 0;)
			read_page(disk, gone[i], buffer);
	}
}

/* Page cache of a disk, churned; then every second page of it is given back and the rest locked. */
static void cache_holes(ulong leave, ulong rounds, ulong each, char *buffer)
{
	long disk = open_disk(), map;
	ulong pages = fill_cache(disk, leave, 0, buffer);

	churn_cache(disk, pages, rounds, each, buffer);
	for (ulong i = 1; i < pages; i += 2)
		forget_page(disk, i);
	map = map_file(disk, pages * PAGE);
	call3(SYS_madvise, map, pages * PAGE, DONTFORK);
	for (ulong i = 0; i < pages; i += 2)
		call2(SYS_mlock, map + i * PAGE, PAGE);
}

static void snapshot(const char *mark, ulong n, char *buffer, int all)
{
	show("/proc/meminfo", mark, n, buffer);
	show("/proc/slabinfo", mark, n, buffer);
	show("/proc/buddyinfo", mark, n, buffer);
	show("/proc/vmstat", mark, n, buffer);
	if (!all)
		return;
	show("/proc/zoneinfo", mark, n, buffer);
	show("/proc/pagetypeinfo", mark, n, buffer);
	show("/proc/self/maps", mark, n, buffer);
	show("/proc/loadavg", mark, n, buffer);
	show("/proc/sys/kernel/threads-max", mark, n, buffer);
	show_page_flags(mark, n, buffer);
}

#define TRACEFS "/sys/kernel/tracing/"
static void trace(char *buffer)
{
	volatile int touched;

	call5(SYS_mount, "tracefs", "/sys/kernel/tracing", "tracefs", 0, 0);
	set(TRACEFS "buffer_size_kb", "512");
	set(TRACEFS "set_event_pid", "1");
	set(TRACEFS "events/kmem/enable", "1");
	for (int i = 0; i < 8; i++) {
		set(TRACEFS "trace_marker", i < 4 ? "fork" : "clone");
		child(i < 4 ? 0 : SHARE_ALL);
		touched = i;
	}
	(void)touched;
	set(TRACEFS "trace_marker", "end");
	set(TRACEFS "events/kmem/enable", "0");
	show(TRACEFS "trace", "trace", 0, buffer);
}

static void stop(const char *why)
{
	put("@@ stop ");
	put(why);
	put("\n");
	call3(SYS_reboot, 0xfee1dead, 672274793, 0x01234567);
	for (;;)
		call0(SYS_pause);
}

/* A child, and how long its making took: KEPT + 1 words at `kept`, the first a count. */
static long timed_child(ulong flags, unsigned *kept)
{
	u64 before = ticks();
	long error = child(flags);

	kept[1 + kept[0]] = ticks() - before;
	if (error >= 0 && ++kept[0] == KEPT) {
		show_latencies("@@ latency", kept + 1, KEPT);
		kept[0] = 0;
	}
	return error;
}

static ulong fork_load(ulong flags, unsigned *kept, char *buffer)
{
	ulong made = 0, every = number("every", 50), limit = number("limit", 0), trace_at = number("trace", 0);
	volatile ulong touched; /* on the stack, so that the stack's page is copied */

	for (;;) {
		long error = timed_child(flags, kept);

		if (error < 0) {
			snapshot("failed", made, buffer, 1);
			put("@@ error ");
			put_number(-error);
			put("\n");
			stop("error");
		}
		touched = ++made;
		if (trace_at && made == trace_at) {
			trace(buffer);
			stop("traced");
		}
		if (made % every == 0)
			snapshot("made", made, buffer, 0);
		if (limit && made == limit) {
			snapshot("end", made, buffer, 1);
			stop("limit");
		}
	}
	return touched;
}

static void trace_reclaim(const char *on)
{
	set(TRACEFS "events/sched/sched_switch/enable", on);
	set(TRACEFS "events/sched/sched_wakeup/enable", on);
	set(TRACEFS "events/vmscan/enable", on);
	set(TRACEFS "events/block/block_rq_issue/enable", on);
	set(TRACEFS "events/block/block_rq_complete/enable", on);
}

/* Children come and go on a machine full of page cache and swappable memory. */
static void cycle_load(ulong flags, unsigned *kept, char *buffer)
{
	ulong alive = number("alive", 200), forks = number("forks", 2000), use = number("use", 64);
	ulong memory = number("anon", 0) * 1024 / PAGE, every = number("every", 50), living = 0, pages;
	ulong events = number("events", 0);
	char *anonymous = unshared(memory * PAGE);
	int *pids = (int *)unshared(alive * sizeof(int));
	long disk = open_disk();
	unsigned random = 7;
	volatile ulong touched;

	for (ulong i = 0; i < memory; i++)
		anonymous[i * PAGE] = 1;
	pages = fill_cache(disk, number("leave", 1024), number("read", 0), buffer);
	put("@@ pages ");
	put_number(pages);
	put("\n");
	churn_cache(disk, pages, number("rounds", 0), number("pages", 0), buffer);
	snapshot("before", 0, buffer, 1);
	if (events) { /* the buffer is there from the start, so that it does not change what memory there is */
		call5(SYS_mount, "tracefs", "/sys/kernel/tracing", "tracefs", 0, 0);
		set(TRACEFS "buffer_size_kb", "1500");
	}
	for (ulong made = 0; made < forks; made++) {
		long pid;

		if (events && made + events == forks)
			trace_reclaim("1");
		if (events && made + events >= forks)
			set(TRACEFS "trace_marker", "fork");
		if (living == alive) {
			ulong at = next_random(&random) % living;

			call2(SYS_kill, pids[at], SIGKILL);
			call(SYS_wait4, pids[at], 0, 0x40000000, 0, 0); /* __WALL */
			pids[at] = pids[--living];
		}
		for (ulong i = 0; i < use; i++) {
			ulong at = next_random(&random) % (memory + pages);

			if (at < memory)
				((volatile char *)anonymous)[at * PAGE];
			else
				read_page(disk, at - memory, buffer);
		}
		pid = timed_child(flags, kept);
		if (pid < 0) {
			put("@@ error ");
			put_number(-pid);
			put("\n");
			break;
		}
		pids[living++] = pid;
		touched = made;
		if ((made + 1) % every == 0)
			show("/proc/vmstat", "made", made + 1, buffer);
	}
	(void)touched;
	if (events) {
		trace_reclaim("0");
		show(TRACEFS "trace", "trace", 0, buffer);
	}
	snapshot("end", forks, buffer, 1);
	stop("cycle");
}

/* load=storm */

struct address {
	unsigned short family, port;
	unsigned ip;
	char zero[8];
};

enum { AF_INET = 2, SOCK_DGRAM = 2, SOCK_RAW = 3, ICMP = 1, DONTWAIT = 0x40 };

static unsigned short swapped(unsigned short value) { return (unsigned short)(value << 8 | value >> 8); }

static long udp_socket(int port)
{
	struct address address = { AF_INET, swapped(port), 0x0100007f, {0} };
	long socket = call3(SYS_socket, AF_INET, SOCK_DGRAM, 0);

	call3(SYS_bind, socket, &address, sizeof address);
	return socket;
}

/* Datagrams over the loopback device: the receiving half runs as softirq on the sender's way out. */
static void storm_loopback(char *buffer)
{
	long from = udp_socket(4001), to = udp_socket(4002);
	struct address address = { AF_INET, swapped(4002), 0x0100007f, {0} };

	for (;;) {
		for (int i = 0; i < 20; i++)
			call(SYS_sendto, from, (long)buffer, i % 2 ? 8000 : 100, 0, (long)&address);
		while (call(SYS_recvfrom, to, (long)buffer, BUFFER, DONTWAIT, 0) > 0)
			;
	}
}

/* Echo requests to QEMU's gateway: each is answered by a packet, each packet by an interrupt of the device. */
static void storm_device(char *buffer)
{
	struct address gateway = { AF_INET, 0, 0x0202000a, {0} };
	long socket = call3(SYS_socket, AF_INET, SOCK_RAW, ICMP);
	unsigned short *words = (unsigned short *)buffer;

	call3(SYS_connect, socket, &gateway, sizeof gateway);
	for (unsigned sequence = 0;; sequence++) {
		unsigned sum = 0;

		for (int i = 0; i < 32; i++)
			words[i] = 0;
		words[0] = 8; /* echo request */
		words[3] = sequence;
		for (int i = 0; i < 32; i++)
			sum += words[i];
		sum = (sum & 0xffff) + (sum >> 16);
		words[1] = ~(sum + (sum >> 16));
		call3(SYS_write, socket, buffer, 64);
		while (call(SYS_recvfrom, socket, (long)buffer, BUFFER, DONTWAIT, 0) > 0)
			;
		if (sequence % 16 == 0)
			rest(0, 1000000);
	}
}

static void storm_timers(void)
{
	for (;;)
		rest(0, 200000);
}

/* Files on ext4, some written through to the disk. */
static void storm_files(char *buffer)
{
	char name[] = "/mnt/file-A";

	for (unsigned n = 0;; n++) {
		long fd;

		name[sizeof name - 2] = 'A' + n % 16;
		fd = call3(SYS_open, name, RDWR | CREAT, 0600);
		for (int i = 0; i < 40; i++)
			call3(SYS_write, fd, buffer, BUFFER / 2);
		if (n % 4 == 0)
			call1(SYS_fsync, fd);
		call1(SYS_close, fd);
		if (n % 3 == 0)
			call1(SYS_unlink, name);
	}
}

/* More memory than there is, over and over: direct reclaim, swap-out, swap-in. */
static void storm_memory(ulong pages)
{
	char *memory = unshared(pages * PAGE);

	for (;;)
		for (ulong i = 0; i < pages; i++)
			memory[i * PAGE]++;
}

static void storm_files_read(void)
{
	static const char *const files[] = {
		"/proc/meminfo", "/proc/vmstat", "/proc/interrupts", "/proc/self/maps", "/proc/net/udp", "/proc/mounts",
		"/proc/self/smaps", "/proc/self/stat", "/proc/stat", "/proc/slabinfo",
	};
	char text[1024];

	for (ulong n = 0;; n++) {
		long fd = call2(SYS_open, files[n % 10], RDONLY);

		while (call3(SYS_read, fd, text, sizeof text) > 0)
			;
		call1(SYS_close, fd);
	}
}

/* The address of a variable of the kernel, by /proc/kallsyms; 0: there is none. */
static ulong symbol(const char *name, char *buffer)
{
	long fd = call2(SYS_open, "/proc/kallsyms", RDONLY), got;
	ulong value = 0, column = 0, matched = 0, found = 0;

	while (!found && (got = call3(SYS_read, fd, buffer, PAGE)) > 0)
		for (long i = 0; i < got; i++) {
			char c = buffer[i];

			if (c == '\n') {
				if (matched == length(name))
					found = value;
				value = column = matched = 0;
				continue;
			}
			if (column < 8)
				value = value << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
			else if (column >= 11)
				matched = matched == column - 11 && c == name[matched] ? matched + 1 : 1ul << 20;
			column++;
		}
	call1(SYS_close, fd);
	return found;
}

/*
 * How deep an interrupt stack has been: pages are zeroed when it is allocated, so the lowest word in use says so.
 * The lowest word of all is where the kernel keeps the stack pointer that it came from.
 */
static void show_mark(const char *name, const char *variable, ulong size, char *buffer)
{
	long fd = call2(SYS_open, "/dev/mem", RDONLY);
	ulong at = symbol(variable, buffer), stack = 0, lowest = 0;
	ulong *words = (ulong *)buffer;

	if (at) {
		call5(SYS_pread64, fd, &stack, sizeof stack, at - 0xc0000000, 0);
		if (stack && call5(SYS_pread64, fd, buffer, size, stack - 0xc0000000, 0) == (long)size)
			for (lowest = 1; lowest < size / 4 && !words[lowest];)
				lowest++;
	}
	call1(SYS_close, fd);
	put("@@ mark ");
	put(name);
	put(" ");
	put_number(stack ? size - 4 * lowest : 0);
	put("\n");
}

static void show_marks(char *buffer)
{
	ulong size = number("stack", 2 * PAGE);

	show_mark("hardirq", "hardirq_stack_ptr", size, buffer);
	show_mark("softirq", "softirq_stack_ptr", size, buffer);
	set("/proc/sysrq-trigger", "t"); /* every task's free stack, on the console */
}

static int forked(void)
{
	return call(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0;
}

static void come_and_go(ulong children)
{
	for (ulong i = 0; i < children; i++)
		if (forked())
			call1(SYS_exit, 0);
	while (call(SYS_wait4, -1, 0, 0, 0, 0) > 0)
		;
}

static void storm_load(char *buffer)
{
	ulong pages = number("swap", 0) * 1024 / PAGE;

	call5(SYS_mount, "/dev/vda", "/mnt", "ext4", 0, 0);
	call5(SYS_mount, "tracefs", "/sys/kernel/tracing", "tracefs", 0, 0);
	snapshot("before", 0, buffer, 1);
	/* The buffer is not inherited: each child takes one of its own. */
	if (forked())
		storm_loopback(unshared(BUFFER));
	if (forked())
		storm_device(unshared(BUFFER));
	if (forked())
		storm_timers();
	if (forked())
		storm_files(unshared(BUFFER));
	if (forked())
		storm_files_read();
	if (pages && forked())
		storm_memory(pages);
	rest(number("seconds", 10), 0);
	call2(SYS_kill, -1, SIGKILL);
	while (call(SYS_wait4, -1, 0, 0, 0, 0) > 0)
		;
	snapshot("end", 0, buffer, 1);
	show("/proc/interrupts", "end", 0, buffer);
	show("/proc/softirqs", "end", 0, buffer);
	show(TRACEFS "stack_max_size", "end", 0, buffer);
	show(TRACEFS "stack_trace", "end", 0, buffer);
	show_marks(buffer);
	stop("storm");
}

/* load=overflow */

static void overflow_load(char *buffer)
{
	char *words = buffer + PAGE, *end = words;
	static const char *const names[] = { "context", "levels" };
	long chain = call2(SYS_open, "/chain.ko", RDONLY), overflow = call2(SYS_open, "/overflow.ko", RDONLY);
	long result;

	for (int i = 0; i < 2; i++) {
		const char *value = parameter(names[i]);

		for (const char *s = names[i]; *s;)
			*end++ = *s++;
		*end++ = '=';
		while (*value)
			*end++ = *value++;
		*end++ = i ? 0 : ' ';
	}
	result = call3(SYS_finit_module, chain, "", 0);
	if (!result)
		result = call3(SYS_finit_module, overflow, words, 0);
	put("@@ module ");
	put_number(result < 0 ? -result : 0);
	put("\n");
	for (int i = 0; i < 3; i++) /* whoever looks at stacks now and then gets the time to */
		rest(1, 0);
	stop("overflow");
}

static int is(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static void set_unless_default(const char *path, const char *name, const char *otherwise)
{
	const char *value = parameter(name);

	if (!is(value, "default"))
		set(path, *value ? value : otherwise);
}

__attribute__((used)) static void start(long *stack)
{
	char *buffer, *keep;
	ulong leave, flags;
	const char *state, *kind, *load;
	unsigned *kept;

	environment = (char **)(stack + stack[0] + 2);
	call5(SYS_mount, "proc", "/proc", "proc", 0, 0);
	call5(SYS_mount, "sysfs", "/sys", "sysfs", 0, 0);
	call5(SYS_mount, "devtmpfs", "/dev", "devtmpfs", 0, 0);
	buffer = unshared(BUFFER);
	for (int i = 0; i < BUFFER; i += PAGE)
		buffer[i] = 0;
	kept = (unsigned *)unshared(PAGE);
	kept[0] = 0;
	keep = map(PAGE);
	*keep = 1;

	state = parameter("state");
	kind = parameter("kind");
	load = parameter("load");
	leave = number("leave", 1024);
	flags = *kind == 't' ? SHARE_ALL : 0;
	set_unless_default("/proc/sys/kernel/randomize_va_space", "aslr", "0"); /* children; this one: norandmaps */
	set_unless_default("/proc/sys/vm/watermark_boost_factor", "boost", "0");
	set("/proc/sys/vm/overcommit_memory", "1");
	set("/proc/sys/vm/panic_on_oom", "1");
	set_unless_default("/proc/sys/kernel/threads-max", "threads", "30000");
	set("/proc/sys/kernel/pid_max", "30000");
	if (call2(SYS_swapon, "/dev/vdb", 0) == 0)
		set("/proc/sys/vm/page-cluster", "0"); /* no readahead: a page is a page */

	snapshot("boot", 0, buffer, 1); /* also brings what a snapshot itself needs into memory */
	if (*kind == 'n' && number("read", 0)) {
		fill_cache(open_disk(), 4096, number("read", 0), buffer);
		stop("none");
	}
	come_and_go(7 * number("repeat", 0));
	if (number("ballast", 0))
		take(unshared(512ul << 20), number("ballast", 0));
	if (*state == 'a')
		anonymous_holes(leave);
	else if (*state == 'l')
		locked_holes(number("touch", 0) * 1024 / PAGE);
	else if (*state == 'r')
		ramfs_holes(leave, buffer);
	else if (*state == 'c')
		cache_holes(leave, number("rounds", 0), number("pages", 0), buffer);
	if (is(load, "cycle"))
		cycle_load(flags, kept, buffer);
	if (is(load, "storm"))
		storm_load(buffer);
	if (is(load, "overflow"))
		overflow_load(buffer);
	snapshot("before", 0, buffer, 1);
	if (*kind == 'n')
		stop("none");
	fork_load(flags, kept, buffer);
}

asm(".globl _start\n_start:\n\tmov %esp, %eax\n\tpush %eax\n\tcall start\n");
