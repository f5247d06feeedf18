"""Answers kept on disk: whole or not at all, never another's, never a damaged one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackfit.cache.key import Key, digests
from stackfit.cache.store import Store, default_directory, default_store, open_store
from stackfit.image.model import InputError

KEY, OTHER = "ab" * 32, "ab" + "cd" * 31
PARTS = {"text": b"deep\n" * 500, "empty": b"", "json": bytes(range(256))}


def only_file(store: Store) -> Path:
    (entry,) = store.entries()
    return entry[0]


def test_parts_come_back_as_they_were_put_in(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.load(KEY) is None
    assert store.save(KEY, PARTS)
    assert store.load(KEY) == PARTS
    assert store.load(OTHER) is None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{KEY}.answer"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_entry_is_removed_and_counts_as_not_there(tmp_path: Path, data: st.DataObject) -> None:
    store = Store(tmp_path)
    store.save(KEY, PARTS)
    file = only_file(store)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert store.load(KEY) is None
    assert not file.exists()


def test_an_entry_under_another_name_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(KEY, PARTS)
    os.rename(only_file(store), tmp_path / "ab" / f"{OTHER}.answer")
    assert store.load(OTHER) is None
    assert store.entries() == []


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    keys = [f"{number:02x}" * 32 for number in range(4)]
    noise = {"noise": os.urandom(1000)}
    Store(tmp_path).save(keys[0], noise)
    store = Store(tmp_path, limit=3 * only_file(Store(tmp_path)).stat().st_size)
    for time, key in enumerate(keys[:3]):
        store.save(key, noise)
        os.utime(tmp_path / key[:2] / f"{key}.answer", (time, time))
    assert store.load(keys[0]) == noise  # used: the second is the oldest now
    store.save(keys[3], noise)
    assert [store.load(key) is not None for key in keys] == [True, False, True, True]
    assert store.clear() == 3
    assert store.load(keys[3]) is None


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not Store(tmp_path / "file").save(KEY, PARTS)
    with pytest.raises(InputError, match="file: "):
        open_store(tmp_path / "file")


def test_the_default_place_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = default_store()
    assert store is not None and store.directory == tmp_path / "stackfit"
    store.directory.chmod(0o777)  # others could have left answers there
    assert default_store() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "stackfit"


def key_of(*values: object, files: tuple[Path, ...] = (), purpose: str = "test") -> str:
    key = Key(purpose)
    for value in values:
        key.add("value", value)
    key.add_files("files", files)
    return key.text


def test_a_key_is_of_values_and_contents_not_of_names_and_times(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"one")
    os.utime(b, (1, 1))
    assert key_of(1, files=(a,)) == key_of(1, files=(b,))
    b.write_bytes(b"two")
    different = [
        key_of(1, files=(a,)),
        key_of(1, files=(b,)),
        key_of(1, files=(a, b)),
        key_of(1, files=(b, a)),
        key_of("1", files=(a,)),
        key_of(1, 1, files=(a,)),
        key_of([1, 1], files=(a,)),
        key_of(1, files=(a,), purpose="other"),
    ]
    assert len(set(different)) == len(different)


def test_only_files_have_a_content(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(InputError):
            digests([tmp_path / name])


def test_what_an_interrupted_run_left_counts_and_goes(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=50_000)
    store.save(KEY, PARTS)
    left = only_file(store).with_name(".new-left")
    left.write_bytes(bytes(60_000))
    os.utime(left, (1, 1))
    assert next(path for path, _, _ in store.entries()) == left
    store.save(OTHER, PARTS)
    assert not left.exists() and store.load(KEY) == store.load(OTHER) == PARTS
