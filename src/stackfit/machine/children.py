"""Processes and threads on the page allocator: what a fork takes, in its order, what an exit returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stackfit.image.model import InputError
from stackfit.layouts.model import PAGE, Layout, Stack
from stackfit.machine.costs import Allocation, ForkCost
from stackfit.pages.allocator_constants import ANONYMOUS, MOVABLE, UNMOVABLE
from stackfit.pages.memory import Handle, Memory, OutOfMemory, Place

__all__ = ["Child", "Children", "Failure", "process_stack"]


def process_stack(layout: Layout) -> Stack:
    """The stack that each process has. InputError: there is none that a fork could allocate."""
    stack = layout.home("syscall") or layout.home("task")
    if stack is None or stack.per != "process" or stack.allocation == "static":
        raise InputError(layout.path or layout.name, "no stack per process that a fork would allocate")
    return stack


class Failure(Exception):
    """A fork that could not be: which allocation failed."""

    def __init__(self, what: str, order: int) -> None:
        super().__init__(f"{what}: order {order}")
        self.what = what
        self.order = order


@dataclass
class _Slab:
    place: Place | None  # None: of a time before this run; it never goes back
    objects: int
    used: int


@dataclass
class _Cache:
    """Slabs of one kind of object: `partial`, those with room."""

    kind: Allocation
    partial: list[_Slab] = field(default_factory=list)

    def take(self, memory: Memory) -> _Slab:
        if not self.partial:
            self.partial.append(self._new(memory))
        slab = self.partial[-1]
        slab.used += 1
        if slab.used == slab.objects:
            self.partial.pop()
        return slab

    def _new(self, memory: Memory) -> _Slab:
        kind = self.kind
        if kind.order > kind.least_order:
            place = memory.try_allocate(kind.order, UNMOVABLE)
            if place is None:
                return _Slab(memory.allocate(kind.least_order, UNMOVABLE), kind.least_objects, 0)
            return _Slab(place, kind.objects, 0)
        return _Slab(memory.allocate(kind.order, UNMOVABLE), kind.objects, 0)

    def give(self, memory: Memory, slab: _Slab) -> None:
        if slab.used == slab.objects:
            self.partial.append(slab)
        slab.used -= 1
        if not slab.used and slab.place is not None:
            self.partial.remove(slab)
            memory.release(slab.place)


@dataclass
class Child:
    """What one child holds."""

    stack: list[Place] = field(default_factory=list)
    blocks: list[Place] = field(default_factory=list)
    pages: list[Handle] = field(default_factory=list)
    objects: list[tuple[int, _Slab]] = field(default_factory=list)  # index of the allocation


class Children:
    """All children of one run. `random` says how full the caches' current slabs are.

    A `dynamic` stack's first pages are mapped at fork, the others by `grow`.
    """

    def __init__(self, memory: Memory, cost: ForkCost, layout: Layout, random: np.random.Generator) -> None:
        self.memory = memory
        self.cost = cost
        self.stack = process_stack(layout)
        self.stack_pages = 0
        self.living = 0
        self._caches = [_Cache(one) for one in cost.allocations]
        for cache in self._caches:  # the slab in use when the run begins has been filled to some level
            objects = cache.kind.objects
            used = int(random.integers(1, objects + 1)) if objects else 0
            if used < objects:
                cache.partial.append(_Slab(None, objects, used))

    def create(self, mode: str) -> Child:
        """Fork (mode "process") or clone (mode "thread"). Failure: an allocation could not be met; what the
        child had taken by then is given back."""
        child = Child()
        self.living += 1
        for index, one in enumerate(self.cost.allocations):
            for _ in range(one.number(mode)):
                try:
                    self._take(child, index, one)
                except OutOfMemory as error:
                    self.remove(child)
                    raise Failure(one.what, error.order) from None
        return child

    def _take(self, child: Child, index: int, one: Allocation) -> None:
        if one.stack:
            self._take_stack(child)
        elif one.objects:
            child.objects.append((index, self._caches[index].take(self.memory)))
        elif one.movable:
            handle = self.memory.allocate_page(ANONYMOUS, MOVABLE)
            self.memory.relate(handle, 1 + self.living)
            child.pages.append(handle)
        else:
            child.blocks.append(self.memory.allocate(one.order, UNMOVABLE))

    def _take_stack(self, child: Child) -> None:
        if self.stack.order is not None:
            child.stack.append(self.memory.allocate(self.stack.order, UNMOVABLE))
            self.stack_pages += 1 << self.stack.order
            return
        size = self.stack.mapped if self.stack.mapped is not None else self.stack.size
        self.grow(child, -(-size // PAGE))

    def grow(self, child: Child, pages: int) -> None:
        """Map single pages until the child's stack has so many."""
        while len(child.stack) < pages:
            child.stack.append(self.memory.allocate(0, UNMOVABLE))
            self.stack_pages += 1

    def remove(self, child: Child) -> None:
        """Exit: everything the child holds goes back."""
        self.living -= 1
        for handle in child.pages:
            self.memory.release_page(handle)
        for place in child.blocks:
            self.memory.release(place)
        for index, slab in child.objects:
            self._caches[index].give(self.memory, slab)
        for place in child.stack:
            self.memory.release(place)
            self.stack_pages -= 1 << place.order
