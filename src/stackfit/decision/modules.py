"""Which module asks most of a stack: binary-only ones first, those nobody else can fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stackfit.analysis import Analysis
from stackfit.bounds.solve import Solver
from stackfit.calls.model import EdgeKind
from stackfit.decision.model import WorstModule

__all__ = ["module_kind", "worst_module"]

BINARY_ONLY, OUT_OF_TREE, IN_TREE = "binary-only", "out-of-tree", "in-tree"
# include/linux/license.h:license_is_gpl_compatible
_GPL_COMPATIBLE = (
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
)


def module_kind(modinfo: Mapping[str, str]) -> str:
    """From `.modinfo`: binary-only when its license is not compatible with the GPL (the kernel is tainted
    "P" then: kernel/module/main.c:set_license), out-of-tree when it was not built with the kernel ("O")."""
    if modinfo.get("license", "unspecified") not in _GPL_COMPATIBLE:
        return BINARY_ONLY
    return IN_TREE if modinfo.get("intree") == "Y" else OUT_OF_TREE


def worst_module(analysis: Analysis) -> WorstModule | None:
    """Of the worst kind given, the module whose own frames can be deepest; None: no modules.

    Ranked by its own frames alone: below most modules lies the same kernel.
    """
    images = analysis.program.images
    kinds = {index: module_kind(image.modinfo) for index, image in enumerate(images) if image.module}
    kind = next((one for one in (BINARY_ONLY, OUT_OF_TREE, IN_TREE) if one in kinds.values()), None)
    if kind is None:
        return None
    chosen = [index for index, one in kinds.items() if one == kind]
    functions, edges = analysis.code.functions, analysis.edges
    members = np.flatnonzero(
        np.isin(functions.image, chosen) & (functions.parent < 0) & ~functions.piece
    ).tolist()
    if not members:
        return None
    owner = np.repeat(np.arange(len(functions)), np.diff(edges.first))
    across = functions.image[owner] != functions.image[edges.callee]
    inside = np.where(across, EdgeKind.SWITCH, edges.kind).astype(edges.kind.dtype)
    solver = Solver(replace(edges, kind=inside), analysis.applied.limits, exceptions=0)
    deepest = max(members, key=lambda one: (solver.upper(one), -one))
    module = images[int(functions.image[deepest])].module or ""
    return WorstModule(
        kind, len(chosen), functions.names[deepest], solver.upper(deepest), analysis.through(module)
    )
