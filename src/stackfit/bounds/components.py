"""Strongly connected components of some of a call graph's edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.bounds.longest import components

__all__ = ["cyclic_components", "strong_components"]


def strong_components(
    first: NDArray[np.int64], callee: NDArray[np.int32], use: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Component number by function, callees first: a component's number is above those it can reach.

    `first`, `callee`: edges in CSR form by caller; `use`: which of them count (bool by edge).
    """
    n = len(first) - 1
    component = np.empty(n, np.int32)
    index, low, stack, frames = (np.full(n + 1, -1, np.int32) for _ in range(4))
    cursor = np.zeros(n + 1, np.int64)
    components(first, callee, use.astype(np.uint8), component, index, low, stack, frames, cursor)
    return component


def cyclic_components(
    first: NDArray[np.int64], callee: NDArray[np.int32], use: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(component by function, edges on a cycle): those within one component, self-calls included."""
    component = strong_components(first, callee, use)
    owner = np.repeat(np.arange(len(first) - 1), np.diff(first))
    return component, np.asarray(use & (component[owner] == component[callee]), np.bool_)
