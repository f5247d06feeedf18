#!/usr/bin/env bash
# The compiled modules under checks that ship off: once with the bounds of every array checked (STACKFIT_CHECKED=1 in
# setup.py), once as they ship under AddressSanitizer. Runs the tests of these modules and the corpus of fuzz/ on each.
# PYTHON names the interpreter that has the dependencies (default .venv/bin/python). Needs gcc with libasan.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
tests=(tests/isa tests/frames tests/bounds tests/calls tests/pages tests/machine tests/image/test_dwarf.py
    tests/measure/test_ladder.py tests/hardness)

built() { # NAME: a copy of the tree with the modules built in it, by the compiler's flags in the environment
    rm -rf "build/$1"
    mkdir -p "build/$1"
    cp -R src setup.py pyproject.toml README.md "build/$1/"
    find "build/$1" -name '*.so' -delete
    (cd "build/$1" && "$python" setup.py --quiet build_ext --inplace)
    test "$(find "build/$1/src" -name '*.so' | wc -l)" -ge 14 || { echo "not all modules were built" >&2; exit 1; }
}

tested() { # NAME OPTION...
    export PYTHONPATH=build/$1/src STACKFIT_HOT_MODULES=compiled
    "$python" -m pytest -q -p no:cacheprovider -m "not kernel and not slow" "${tests[@]}" "${@:2}"
    "$python" -m fuzz --seconds "${SECONDS_OF_FUZZING:-60}"
}

echo "== bounds checked"
STACKFIT_CHECKED=1 built checked-tree
(tested checked-tree)

echo "== AddressSanitizer"
CFLAGS="-fsanitize=address -fno-omit-frame-pointer -g" LDFLAGS="-fsanitize=address" built sanitized
# Python's own memory stays with malloc, so that what is behind an array of it is seen. Its leaks are its own.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc
LD_PRELOAD=$(gcc -print-file-name=libasan.so)
export LD_PRELOAD
# capstone is loaded in a way (RTLD_DEEPBIND) that AddressSanitizer refuses.
(tested sanitized --ignore tests/isa/test_reduced_decode.py --ignore tests/isa/test_x86_decode.py)
