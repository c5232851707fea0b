"""What DVC is spared gives the same as what it does: a dependency hashed once, a file in memory found by its name."""

from collections import UserDict

import pytest
from dvc.dependency.base import Dependency
from fsspec.implementations.memory import MemoryFileSystem

from tradeoffs.repro import dvc_gaps


class Unread(UserDict):
    """Nobody may go through it."""

    def __iter__(self):
        raise AssertionError("gone through from the first file to the last")


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    fs = MemoryFileSystem()
    fs.pipe_file("/folder/file", b"content")
    return fs


@pytest.mark.parametrize("path", ["/folder/file", "memory://folder/file", "/folder", "/"])
def test_what_is_in_memory_is_found_as_by_fsspec(memory, path):
    theirs = memory.info(path)
    with dvc_gaps.quiet():
        assert memory.info(path) == theirs


def test_what_is_not_in_memory_is_not_found(memory):
    with dvc_gaps.quiet(), pytest.raises(FileNotFoundError):
        memory.info("/folder/other")


def test_a_file_in_memory_is_found_without_looking_at_the_others(memory, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", Unread(memory.store))
    with pytest.raises(AssertionError):
        memory.info("/folder/file")
    with dvc_gaps.quiet():
        assert memory.info("/folder/file")["size"] == len(b"content")


def test_a_dependency_is_hashed_once_inside_and_again_afterwards(monkeypatch):
    hashed = []

    def build(self, odb, path, fs, name, **_):
        hashed.append(path)
        return odb, None, f"{name} of {path}"

    monkeypatch.setattr(Dependency, "_build", build)
    one, same, other = (Dependency.__new__(Dependency) for _ in range(3))
    for _ in range(2):
        with dvc_gaps.hashed_once():
            found = [dep._build(None, path, None, "md5")[2] for dep, path in ((one, "a"), (same, "a"), (other, "b"))]
        assert found == ["md5 of a", "md5 of a", "md5 of b"]
    assert hashed == ["a", "b", "a", "b"]
