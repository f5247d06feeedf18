/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init of the process experiment on a distribution's kernel: an ordinary C program that forks children which
 * wait, until the OOM killer is called (it panics).  Words on the kernel command line:
 *   touch=KB   first touch so much anonymous memory, free every second page and lock the rest
 *   boost=N    vm.watermark_boost_factor (default: the kernel's)
 *   every=N    print meminfo, slabinfo and buddyinfo every N children (100)
 * Address-space layout is random unless the kernel is told `norandmaps`.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		printf("init: cannot set %s\n", path);
	if (fd >= 0)
		close(fd);
}

static void show(const char *path, const char *mark, int n)
{
	char buffer[PAGE];
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		return;
	printf("@@ %s %d %s\n", mark, n, path);
	fflush(stdout);
	while ((got = read(fd, buffer, sizeof buffer)) > 0)
		if (write(1, buffer, got) < 0)
			break;
	printf("@@ end\n");
	fflush(stdout);
	close(fd);
}

static void snapshot(const char *mark, int n)
{
	static const char *const files[] = { "meminfo", "buddyinfo", "pagetypeinfo", "zoneinfo", "slabinfo" };
	char path[32];

	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "/proc/%s", files[i]);
		show(path, mark, n);
	}
}

static void holes(long pages)
{
	char *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (long i = 0; i < pages; i++)
		memory[i * PAGE] = 1;
	for (long i = 0; i < pages; i++)
		if (i & 1)
			madvise(memory + i * PAGE, PAGE, MADV_DONTNEED);
		else
			mlock(memory + i * PAGE, PAGE);
	madvise(memory, pages * PAGE, MADV_DONTFORK);
}

int main(void)
{
	const char *touch = getenv("touch"), *boost = getenv("boost"), *word = getenv("every");
	int made = 0, every = word ? atoi(word) : 100;

	mount("proc", "/proc", "proc", 0, 0);
	set("/proc/sys/vm/overcommit_memory", "1");
	set("/proc/sys/vm/panic_on_oom", "1");
	set("/proc/sys/vm/compact_unevictable_allowed", "0");
	set("/proc/sys/kernel/threads-max", "30000");
	set("/proc/sys/kernel/pid_max", "30000");
	if (boost)
		set("/proc/sys/vm/watermark_boost_factor", boost);
	show("/proc/self/maps", "boot", 0);
	snapshot("boot", 0);
	if (touch)
		holes(atol(touch) / (PAGE / 1024));
	snapshot("before", 0);
	for (;;) {
		pid_t child = fork();

		if (child < 0)
			break;
		if (!child)
			for (;;)
				pause();
		if (++made % every == 0) {
			show("/proc/meminfo", "made", made);
			show("/proc/slabinfo", "made", made);
			show("/proc/buddyinfo", "made", made);
		}
	}
	printf("@@ error %d\n", made);
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
