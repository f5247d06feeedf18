// SPDX-License-Identifier: GPL-2.0-only
/*
 * A chain of calls of a chosen depth, and nothing else: what `stackfit check --through chain` looks at.
 *
 * Each level is a call of stackfit_step() by itself. It leaves where the stack pointer was in the last one, which
 * is the lowest address that the chain has used.
 */
#include <linux/module.h>

unsigned long stackfit_step(unsigned long level);

/* Not inlined and no loop: what comes back is used after the call, from the stack. */
noinline unsigned long stackfit_step(unsigned long level)
{
	volatile unsigned long here = level;
	unsigned long lowest = current_stack_pointer;

	if (level > 1)
		lowest = stackfit_step(level - 1);
	return lowest + (here - level);
}
EXPORT_SYMBOL_GPL(stackfit_step);

MODULE_DESCRIPTION("a chain of calls of a chosen depth");
MODULE_LICENSE("GPL");
