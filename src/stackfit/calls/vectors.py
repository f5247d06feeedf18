"""Interrupt and exception vectors of a Linux kernel: entry stub, C handler, and what lies between.

The handler is read from the stub's code. x86-64: the first call from the stub to a function outside the
entry code (arch/x86/entry/entry_64.S, idtentry). i386: the address that the stub pushes before it jumps to
`handle_exception` (entry_32.S), or a direct call. arm64: the handlers that arch/arm64/kernel/entry.S names;
what its vectors push first is read from their code.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = ["SYNCHRONOUS", "Vector", "entry_bytes", "entry_frame", "find_vectors"]

SYNCHRONOUS = "el1h_64_sync"  # every exception that arm64 kernel code raises

# arch/x86/include/asm/trapnr.h
_EXCEPTIONS = {
    "divide_error": 0, "debug": 1, "nmi": 2, "int3": 3, "overflow": 4, "bounds": 5, "invalid_op": 6,
    "device_not_available": 7, "double_fault": 8, "coproc_segment_overrun": 9, "invalid_tss": 10,
    "segment_not_present": 11, "stack_segment": 12, "general_protection": 13, "page_fault": 14,
    "spurious_interrupt_bug": 15, "coprocessor_error": 16, "alignment_check": 17, "machine_check": 18,
    "simd_coprocessor_error": 19, "virtualization_exception": 20, "control_protection": 21,
    "vmm_communication": 29,
}  # fmt: skip
# arch/arm/kernel/entry-armv.S, by the x86 numbers of what they are for: faults on memory; BUG() and WARN().
_ARM_STUBS = (("__dabt_svc", 14), ("__und_svc", 6))
# Stubs that only another entry path uses (Xen PV, FRED, early boot).
_OTHER_ENTRIES = (
    "asm_xenpv_",
    "xen_asm_",
    "asm_fred_",
    "asm_exc_xen_",
    "asm_exc_nmi_noist",
    "asm_exc_nmi_kvm_vmx",  # since 6.9 what asm_exc_nmi_noist was: KVM calls it after an NMI of a guest
    "asm_load_gs_index",
)


@dataclass(frozen=True)
class Vector:
    """One way into the kernel through the IDT."""

    name: str  # of the handler, without its prefix: "page_fault", "apic_timer_interrupt", "common_interrupt"
    kind: str  # "exception", "system-vector" or "device"
    number: int  # -1 when it is not fixed
    stub: int  # function of the assembly entry
    handler: int  # function of the C handler


def entry_frame(machine: Machine, from_user: bool) -> tuple[int, str]:
    """(bytes, source) between the interrupted stack pointer and the handler's return address.

    From user mode it starts at the top of the process stack (below the layout's reserve); from kernel mode
    at the interrupted depth, with the worst alignment.
    """
    if not machine.x86:
        return 0, ""
    if machine is Machine.X86_64:
        # struct pt_regs: 21 words. The CPU aligns the stack pointer to 16 bytes before it pushes.
        if from_user:
            return 168, "arch/x86/include/asm/ptrace.h: struct pt_regs"
        return 176, "struct pt_regs (168) + alignment by the CPU (at most 8; Intel SDM 3A 6.14.2)"
    # struct pt_regs: 17 words.
    if from_user:
        return 68, "arch/x86/include/asm/ptrace.h: struct pt_regs"
    # From kernel mode FIXUP_FRAME makes a full frame below the one that was begun (6 words).
    return 92, "struct pt_regs (68) + the 6 words that FIXUP_FRAME copies (arch/x86/entry/entry_32.S)"


def entry_bytes(code: Code, from_user: bool) -> tuple[int, str]:
    """As entry_frame(); on arm64 as the vectors of this image begin: `sub sp, sp, #PT_REGS_SIZE`."""
    if code.machine is not Machine.AARCH64:
        return entry_frame(code.machine, from_user)
    table = code.instructions
    pointer = CONVENTIONS[code.machine].stack_pointer
    for function in code.functions.named("vectors")[:1]:
        for row in range(int(code.first[function]), int(code.first[function + 1])):
            moved = int(table.immediate[row])
            if (
                table.operation[row] == Operation.ADD_IMMEDIATE
                and table.register[row] == pointer
                and moved < 0
            ):
                return -moved, "arch/arm64/kernel/entry.S:kernel_ventry (struct pt_regs), read from its code"
    return 0, ""


def find_vectors(code: Code) -> list[Vector]:
    """All vectors whose entry stub and handler the image names, in order of their stub's address."""
    functions = code.functions
    if code.machine is Machine.AARCH64:
        handlers = functions.named(f"{SYNCHRONOUS}_handler")[:1]
        stubs = functions.named(SYNCHRONOUS)[:1]
        return [
            Vector(SYNCHRONOUS, "exception", -1, stub, handler)
            for stub, handler in zip(stubs, handlers, strict=False)
        ]
    if code.machine is Machine.ARM:  # the stubs themselves are followed (arch/arm/kernel/entry-armv.S)
        return [
            Vector(name.removesuffix("_svc").removeprefix("__"), "exception", number, stub, stub)
            for name, number in _ARM_STUBS
            for stub in functions.named(name)[:1]
        ]
    vectors: list[Vector] = []
    for index, name in enumerate(functions.names):
        names = (name, *functions.aliases[index])
        if len(names) == 1 and not name.startswith("asm_"):
            continue
        stub_name = next(
            (
                text
                for text in names
                if text.startswith(("asm_exc_", "asm_sysvec_", "asm_common_", "asm_spurious_", "asm_int80"))
            ),
            None,
        )
        if stub_name is None or stub_name.startswith(_OTHER_ENTRIES):
            continue
        handler = _handler(code, index)
        if handler < 0:
            continue
        short = stub_name.removeprefix("asm_")
        if short.startswith("exc_"):
            short = short.removeprefix("exc_")
            vectors.append(Vector(short, "exception", _EXCEPTIONS.get(short, -1), index, handler))
        elif short.startswith("sysvec_"):
            vectors.append(Vector(short.removeprefix("sysvec_"), "system-vector", -1, index, handler))
        elif short.startswith("int80"):
            continue  # a system call: contexts/linux.py
        else:
            vectors.append(Vector(short, "device", -1, index, handler))
    return vectors


def _handler(code: Code, stub: int) -> int:
    """The C function that a stub leads to, or -1."""
    table, functions = code.instructions, code.functions
    row, end = int(code.first[stub]), len(code)
    seen: set[int] = set()
    pushed = -1
    while row < end and row not in seen and len(seen) < 200:
        seen.add(row)
        operation = int(table.operation[row])
        if (
            operation == Operation.PUSH
            and int(table.register[row]) == NO_REGISTER
            and not int(table.flags[row]) & FLAG_MEMORY
        ):
            target = (
                functions.at(int(table.immediate[row]) & 0xFFFF_FFFF) if code.machine is Machine.I386 else -1
            )
            if target >= 0:
                pushed = target
        if operation == Operation.CALL and int(code.target[row]) >= 0:
            callee = int(code.function[int(code.target[row])])
            if _is_handler(functions.names[callee]):
                return callee
        if operation == Operation.CALL_INDIRECT or (operation == Operation.JUMP and pushed >= 0):
            return pushed
        if operation == Operation.JUMP and int(code.target[row]) >= 0:
            row = int(code.target[row])
            continue
        if operation in (
            Operation.RETURN,
            Operation.INTERRUPT_RETURN,
            Operation.JUMP_INDIRECT,
            Operation.BREAKPOINT,
        ):
            break
        row += 1
    return pushed


def _is_handler(name: str) -> bool:
    """C handlers as DEFINE_IDTENTRY* names them (arch/x86/include/asm/idtentry.h).

    `kernel_exc_`: of #VC, whose stub comes to it before the handler for user mode.
    """
    return name.startswith(
        ("exc_", "kernel_exc_", "sysvec_", "common_interrupt", "spurious_interrupt", "__common_interrupt")
    )
