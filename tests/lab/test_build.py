"""lab build: what stops it is said in one line, before anything is compiled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from stackfit.cli.main import main
from stackfit.image.model import InputError
from stackfit.lab.build import VARIANTS, BuildOptions, build_kernel, built_json, load_built
from stackfit.layouts import load_layout

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "stackfit.lab-build-1.json"
TOOLS = ("make", "gcc", "ld", "flex", "bison", "bc", "patch", "xz")
TREE = {
    "Kbuild": "",
    "Makefile": "mrproper:\n\t@true\n",
    "arch/x86/Kconfig.debug": "config SOMETHING\n\tbool\n",
    "arch/x86/include/asm/page_32_types.h": "#define THREAD_SIZE_ORDER\t1\n",
}
KERNEL = {
    "schema": "stackfit.lab-build/1", "name": "4k", "variant": "4k", "configs": [], "release": "6.1.192",
    "compiler": "gcc 12", "seconds": 600.0, "cpu_seconds": None, "jobs": 2, "cache": False, "objects": 985,
    "patches": {"0001-x86-32-4kstacks.patch": "00"},
}  # fmt: skip


@pytest.fixture
def tools() -> None:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def test_every_variant_has_a_layout() -> None:
    layouts = [load_layout(name) for name in VARIANTS.values()]
    sizes = {layout.name: {stack.name: stack.size for stack in layout.stacks} for layout in layouts}
    assert sizes["linux-i386-4k"]["process"] == sizes["linux-i386-4k"]["hardirq"] == 4096
    assert sizes["linux-i386"]["process"] == sizes["linux-i386"]["softirq"] == 8192
    assert not {"hardirq", "softirq"} & set(sizes["linux-i386-shared"])


def test_no_kernel_source(tmp_path: Path, tools: None, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lab", "build", "--variant", "4k", "--builds", str(tmp_path / "out"), "--source", str(tmp_path)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "no kernel source" in error and error.count("\n") == 1


def test_a_tree_that_the_patches_do_not_fit(tmp_path: Path, tools: None) -> None:
    tree = tmp_path / "linux"
    for name, text in TREE.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output = tmp_path / "out"
    with pytest.raises(InputError, match=r"0001-x86-32-4kstacks.patch: does not fit this source: arch/x86"):
        build_kernel(BuildOptions("4k", output, tree))
    # Nothing half-patched is left, and the tree is as it was.
    assert not any((output / "source").iterdir())
    assert (tree / "arch/x86/Kconfig.debug").read_text() == TREE["arch/x86/Kconfig.debug"]


def test_missing_tools_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ("flex", "bc")
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name in gone else f"/bin/{name}")
    with pytest.raises(InputError, match="flex, bc: not found; apt-get install flex bc"):
        build_kernel(BuildOptions("8k", tmp_path))


def test_an_unknown_configuration(tmp_path: Path, tools: None) -> None:
    with pytest.raises(InputError, match=r"nosuch.*ours: compaction"):
        build_kernel(BuildOptions("8k", tmp_path, configs=("nosuch",)))


def test_a_kernel_that_was_built(tmp_path: Path) -> None:
    directory = tmp_path / "kernels" / "4k"
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(json.dumps(KERNEL))
    built = load_built(tmp_path, "4k")
    assert built.layout == "linux-i386-4k" and built.path("bzImage") == directory / "bzImage"
    assert built_json(built) == KERNEL
    jsonschema.validate(built_json(built), json.loads(SCHEMA.read_text()))
    with pytest.raises(InputError, match="no kernel there: stackfit lab build --variant 8k"):
        load_built(tmp_path, "8k")
    (directory / "kernel.json").write_text("{}")
    with pytest.raises(InputError, match="not written by lab build"):
        load_built(tmp_path, "4k")
