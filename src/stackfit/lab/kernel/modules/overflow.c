// SPDX-License-Identifier: GPL-2.0-only
/*
 * Uses a chosen depth of stack in a chosen context (the chain is that of chain.ko):
 *
 *   context=process   in a thread of the kernel
 *   context=hardirq   in the handler of an interrupt that hits that thread
 *   context=softirq   in a tasklet that this handler leaves, on the way out of the interrupt
 *
 * The interrupt is ISA line 8, raised by an INT instruction: the entry code, the controller's mask and
 * acknowledgement, and the handler run as for one of the device's, at a known place.
 *
 * Prints the lowest address used, the stack that it is on, and what is left of it (less than 4: the word at
 * the end of the stack is overwritten, or memory below it).
 */
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/task_stack.h>

enum { LINE = 8, VECTOR = 0x30 + LINE };

extern unsigned long stackfit_step(unsigned long level);

static char *context = "process";
module_param(context, charp, 0444);
static unsigned long levels = 1;
module_param(levels, ulong, 0444);
static unsigned long lowest, top;
static DECLARE_COMPLETION(done);

static irqreturn_t handle_here(int line, void *unused)
{
	top = current_stack_pointer;
	lowest = stackfit_step(levels);
	return IRQ_HANDLED;
}

static void run_tasklet(struct tasklet_struct *unused)
{
	top = current_stack_pointer;
	lowest = stackfit_step(levels);
}

static DECLARE_TASKLET(later, run_tasklet);

static irqreturn_t handle_later(int line, void *unused)
{
	tasklet_schedule(&later);
	return IRQ_HANDLED;
}

static noinline void raise_interrupt(void)
{
	asm volatile("int %0" : : "i"(VECTOR) : "memory");
}

/* Its stack stays for as long as it waits; going to sleep is where the scheduler looks at the stack's end. */
static noinline void wait_for_end(void)
{
	complete(&done);
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
}

static int thread_process(void *unused)
{
	top = current_stack_pointer;
	lowest = stackfit_step(levels);
	wait_for_end();
	return 0;
}

static int thread_interrupt(void *unused)
{
	raise_interrupt();
	wait_for_end();
	return 0;
}

static void report(struct task_struct *task)
{
	/* What went below the end of its stack is in the block under it: the top tells which stack it was. */
	unsigned long end = (unsigned long)end_of_stack(task), stack = top & ~(THREAD_SIZE - 1);

	pr_emerg("stackfit: context %s levels %lu top %ld stack %s left %ld end %s\n", context, levels,
		 (long)(stack + THREAD_SIZE - top), stack == (end & ~(THREAD_SIZE - 1)) ? "process" : "interrupt", (long)(lowest - stack),
		 task_stack_end_corrupted(task) ? "overwritten" : "intact");
}

static int __init overflow_init(void)
{
	int (*thread)(void *) = thread_process;
	struct task_struct *task;
	int error = 0;

	if (strcmp(context, "process")) {
		irq_handler_t handler = strcmp(context, "softirq") ? handle_here : handle_later;

		error = request_irq(LINE, handler, 0, "stackfit", NULL);
		thread = thread_interrupt;
	}
	if (error)
		return error;
	task = kthread_create(thread, NULL, "stackfit");
	if (IS_ERR(task))
		return PTR_ERR(task);
	wake_up_process(task);
	wait_for_completion(&done);
	report(task);
	kthread_stop(task);
	return 0;
}
module_init(overflow_init);

MODULE_DESCRIPTION("uses a chosen depth of stack");
MODULE_LICENSE("GPL");
