"""examples/article.ipynb: runs on the bundled kernel, and is stored as it ran on a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stackfit
from stackfit.decision.model import Answer

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "examples" / "article.ipynb"
CLAIMS = 13


def texts(cells: list[Any]) -> list[str]:
    return [
        "".join(out.get("text", ""))
        for cell in cells
        if cell["cell_type"] == "code"
        for out in cell["outputs"]
    ]


def answers(found: list[str]) -> list[str]:
    """The answer of each claim's cell."""
    words = [answer.value.upper() for answer in Answer]
    starts = [text.split("\n\n")[1] for text in found if text.startswith("“")]
    return [next(word for word in words if start.startswith(f"{word} (")) for start in starts]


@pytest.mark.slow
def test_it_runs_on_the_bundled_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra dev is not installed")
    client = pytest.importorskip("nbclient", reason="the extra dev is not installed")
    pytest.importorskip("ipykernel", reason="the extra dev is not installed")
    monkeypatch.setenv(
        "STACKFIT_KERNEL", str(REPOSITORY / "fixtures" / "sample" / "bin" / "i386" / "vmlinux")
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(stackfit.__file__).parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    assert len(answers(texts(notebook.cells))) == CLAIMS


def test_what_is_stored_ran_in_order_on_a_real_kernel() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(
        out["output_type"] == "stream" and out["name"] == "stdout" for cell in code for out in cell["outputs"]
    )
    found = texts(notebook["cells"])
    assert "Linux 6.1." in found[0] and "sample" not in found[0]
    assert len(answers(found)) == CLAIMS
    assert NOTEBOOK.stat().st_size < 100_000
    assert str(REPOSITORY) not in NOTEBOOK.read_text(encoding="utf-8")
