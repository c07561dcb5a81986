"""Hashes of large files are kept between commands, and never that of a file that has changed."""

import hashlib
import json
import os
import sys
import time

import pytest

from ilu.system import cache
from ilu.system.cache import content_hash, hash_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="keeps no time of the last change")


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The files that were read; every file is large and has settled."""
    found = []
    whole = cache.file_hash
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LARGE", 1)
    monkeypatch.setattr(cache, "SETTLED", -1)
    monkeypatch.setattr(cache, "file_hash", lambda file: found.append(file) or whole(file))
    hash_of.cache_clear()
    yield found
    hash_of.cache_clear()


def written(tmp_path, text="abc"):
    file = tmp_path / "model.safetensors"
    file.write_text(text)
    return file


def another_command():
    hash_of.cache_clear()


def test_a_second_command_does_not_read_the_file(tmp_path, read):
    file = written(tmp_path)
    first = content_hash(file)
    another_command()
    assert content_hash(file) == first == hashlib.sha256(b"abc").hexdigest()
    assert len(read) == 1


def test_a_file_whose_time_was_set_back_is_read_again(tmp_path, read):
    file = written(tmp_path)
    first, times = content_hash(file), file.stat()
    time.sleep(0.02)
    file.write_text("abd")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    another_command()
    assert content_hash(file) != first
    assert len(read) == 2


def test_a_file_that_has_just_changed_is_not_kept(tmp_path, read, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", 10**10)
    file = written(tmp_path)
    content_hash(file)
    another_command()
    content_hash(file)
    assert len(read) == 2


@pytest.mark.parametrize("damage", ["", "[1]", "{}", '{"state": 1}'])
def test_a_damaged_entry_is_made_again(tmp_path, read, damage):
    file = written(tmp_path)
    first = content_hash(file)
    (entry,) = (tmp_path / "cache/hashes").iterdir()
    entry.write_text(damage)
    another_command()
    assert content_hash(file) == first
    assert json.loads(entry.read_text())["sha256"] == first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, read, monkeypatch):
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "no folder"))
    assert content_hash(written(tmp_path)) == hashlib.sha256(b"abc").hexdigest()
