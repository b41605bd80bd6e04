"""Compiled kernels on disk: found again, and only what is whole and one's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_adaptact.backends import cache

USE = """
import subprocess, sys
import numpy as np
run, count = subprocess.run, []
subprocess.run = lambda command, **options: (count.append(command), run(command, **options))[1]
sys.path.insert(0, sys.argv[1])
import keras, keras_adaptact as ka
from autodiff import differentiate
z = np.linspace(-2, 2, 7, dtype="float32")
y, *_ = differentiate(ka.FReLU(b_initializer=0.5), z, np.ones_like(z))
np.testing.assert_allclose(keras.ops.convert_to_numpy(y), np.maximum(z, 0) + 0.5)
print(sum('kernel.c' in command for command in count))
"""


def compiled(folder) -> int:
    """How often a fresh process calls the compiler."""
    environment = os.environ | {cache.VARIABLE: str(folder)}
    tests = Path(__file__).parent
    command = [sys.executable, "-c", USE, str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tests.parent, check=True)
    return int(done.stdout.split()[-1])


def test_a_second_process_compiles_nothing_and_a_damaged_file_is_made_again(tmp_path):
    folder = tmp_path / "kernels"
    assert (compiled(folder), compiled(folder)) == (1, 0)
    (made,) = folder.iterdir()
    assert made.suffix == ".so"
    made.write_bytes(made.read_bytes()[:-100])
    assert compiled(folder) == 1
    (made,) = folder.iterdir()
    made.chmod(0o666)  # which anybody might have written
    assert compiled(folder) == 1


@pytest.fixture
def named(monkeypatch):
    return lambda value: monkeypatch.setenv(cache.VARIABLE, str(value))


def kept(content=b"kernel"):
    with cache.workplace() as folder:
        (folder / "made").write_bytes(content)
        return cache.keep(folder / "made", "name.so")


def test_the_folder_is_private(named, tmp_path):
    named(tmp_path / "a" / "b")
    assert kept() == tmp_path / "a" / "b" / "name.so" == cache.find("name.so")
    assert cache.folder().stat().st_mode & 0o777 == 0o700
    assert cache.find("other.so") is None
    cache.folder().chmod(0o777)
    assert cache.folder() is None and cache.find("name.so") is None


def test_a_folder_behind_a_link_is_not_used(named, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    named(tmp_path / "link")
    assert cache.folder() is None


def test_a_file_of_another_user_is_not_used(named, tmp_path, monkeypatch):
    named(tmp_path / "mine")
    kept()
    monkeypatch.setattr(cache.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert cache.folder() is None and cache.find("name.so") is None


@pytest.mark.parametrize("value", ["", "/proc/nowhere", "/dev/null"])
def test_without_a_folder_nothing_is_kept(named, value):
    named(value)
    assert cache.folder() is None
    with cache.workplace() as folder:
        (folder / "made").write_bytes(b"kernel")
        assert cache.keep(folder / "made", "name.so") == folder / "made"


def test_the_default_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "keras_adaptact"
