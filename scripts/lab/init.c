/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init of the process experiment: brings memory into a state, then makes children
 * that only wait until memory gives out.  Static, i386, no libc: every page and
 * every system call it uses is visible here.
 *
 * Words on the kernel command line (the kernel hands them over as environment):
 *   state=fresh|anon|ramfs|locked   memory before the first child (default fresh)
 *   kind=process|thread|none children: fork, or clone with CLONE_VM|FS|FILES|SIGHAND
 *   leave=KB                 free memory at which filling stops before holes are made (1024)
 *   touch=KB                 state=locked: so much is touched, every second page freed, the rest locked
 *   ballast=KB               first take memory until no more than KB are free (0: do not)
 *   every=N                  print meminfo, slabinfo and buddyinfo every N children (50)
 *   limit=N                  stop after N children (0: when memory gives out)
 *   trace=N                  after N children trace the allocator under 4 more of each kind
 *
 * The first invocation of the OOM killer panics (vm.panic_on_oom): the kernel's own
 * report then names order, flags and call chain of the allocation that failed, free
 * blocks by order, and every process (one line each).
 *
 * A child is as cheap as a program can be: three page tables (text and data, mappings,
 * stack) and one copied page: the parent writes its stack page after every fork, gets
 * a copy, and leaves the old page to the child.  The child touches nothing itself, so
 * whatever it costs is spent when fork returns.
 */

typedef unsigned long ulong;
typedef unsigned long long u64;

enum {
	SYS_read = 3, SYS_write = 4, SYS_open = 5, SYS_close = 6, SYS_unlink = 10, SYS_lseek = 19,
	SYS_mount = 21, SYS_pause = 29, SYS_reboot = 88, SYS_munmap = 91, SYS_sysinfo = 116,
	SYS_clone = 120, SYS_mlock = 150, SYS_nanosleep = 162, SYS_mmap2 = 192, SYS_madvise = 219,
};

enum { PAGE = 4096, BUFFER = 8 * PAGE, RDONLY = 0, WRONLY = 1, RDWR = 2, CREAT = 0100 };
enum { SIGCHLD = 17, SHARE_ALL = 0x100 | 0x200 | 0x400 | 0x800 }; /* CLONE_VM|FS|FILES|SIGHAND */
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

static void snapshot(const char *mark, ulong n, char *buffer, int all)
{
	show("/proc/meminfo", mark, n, buffer);
	show("/proc/slabinfo", mark, n, buffer);
	show("/proc/buddyinfo", mark, n, buffer);
	if (!all)
		return;
	show("/proc/zoneinfo", mark, n, buffer);
	show("/proc/vmstat", mark, n, buffer);
	show("/proc/pagetypeinfo", mark, n, buffer);
	show("/proc/self/maps", mark, n, buffer);
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

__attribute__((used)) static void start(long *stack)
{
	char *buffer, *keep;
	ulong made = 0, every, limit, leave, trace_at, flags;
	volatile ulong touched; /* on the stack */
	const char *state, *kind;
	long error;

	environment = (char **)(stack + stack[0] + 2);
	call5(SYS_mount, "proc", "/proc", "proc", 0, 0);
	call5(SYS_mount, "sysfs", "/sys", "sysfs", 0, 0);
	buffer = unshared(BUFFER);
	for (int i = 0; i < BUFFER; i += PAGE)
		buffer[i] = 0;
	keep = map(PAGE);
	*keep = 1;

	state = parameter("state");
	kind = parameter("kind");
	every = number("every", 50);
	limit = number("limit", 0);
	leave = number("leave", 1024);
	trace_at = number("trace", 0);
	flags = *kind == 't' ? SHARE_ALL : 0;
	set("/proc/sys/kernel/randomize_va_space", "0"); /* for children; this one: norandmaps */
	set("/proc/sys/vm/watermark_boost_factor", parameter("boost")[0] ? parameter("boost") : "0");
	set("/proc/sys/vm/overcommit_memory", "1");
	set("/proc/sys/vm/panic_on_oom", "1");
	set("/proc/sys/kernel/threads-max", "30000");
	set("/proc/sys/kernel/pid_max", "30000");

	snapshot("boot", 0, buffer, 1); /* also brings what a snapshot itself needs into memory */
	if (number("ballast", 0))
		take(unshared(512ul << 20), number("ballast", 0));
	if (*state == 'a')
		anonymous_holes(leave);
	else if (*state == 'l')
		locked_holes(number("touch", 0) * 1024 / PAGE);
	else if (*state == 'r')
		ramfs_holes(leave, buffer);
	snapshot("before", 0, buffer, 1);
	if (*kind == 'n')
		stop("none");

	for (;;) {
		error = child(flags);
		if (error < 0)
			break;
		touched = ++made;
		if (trace_at && made == trace_at) {
			trace(buffer);
			stop("traced");
		}
		if (made % every == 0)
			snapshot("made", made, buffer, 0);
		if (limit && made == limit)
			stop("limit");
	}
	snapshot("failed", touched, buffer, 1);
	put("@@ error ");
	put_number(-error);
	put("\n");
	stop("error");
}

asm(".globl _start\n_start:\n\tmov %esp, %eax\n\tpush %eax\n\tcall start\n");
