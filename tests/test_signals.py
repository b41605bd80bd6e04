"""SIGTERM and Ctrl-C to each command, from its first line on; independent of the backend."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from old import OLD

from tuner import search
from tuner.searches.folder import SearchFolder
from zoo import backend, environment, sweep

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "zoo.train": ["configs/quickstart.json"],
    "zoo.evaluate": [OLD / "finished"],
    "zoo.predict": [OLD / "finished", "x.png"],
    "zoo.report": [OLD / "sweep"],
    "zoo.sweep": ["configs/sweeps/quick.json"],
    "zoo.compare": ["configs/quickstart.json"],
    "zoo.config": [],
    "zoo.pack": [OLD / "sweep", "packed"],
    "tuner.search": ["configs/search/quick.json"],
    "tuner.report": [OLD / "search"],
    "tuner.worker": [OLD / "search"],
    "tuner.trial": [OLD / "search", "0000", "{}"],
}
STATUS = {signal.SIGTERM: 4, signal.SIGINT: 130}


def slow(folder: Path, package: str) -> dict[str, str]:
    """An environment where a package says that it is imported, and takes long."""
    folder.joinpath(f"{package}.py").write_text("import os, time; os.write(1, b'here'); time.sleep(60)")
    return dict(os.environ) | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", STATUS)
def test_a_command_that_is_starting(name, number, tmp_path):
    command = [sys.executable, "-m", name, *map(str, COMMANDS[name])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE}
    package = "numpy" if name in ("zoo.predict", "zoo.config") else "pydantic"
    with subprocess.Popen(command, cwd=ROOT, env=slow(tmp_path, package), **pipes) as process:
        assert process.stdout and process.stdout.read(4) == b"here"
        process.send_signal(number)
        process.wait(30)  # before its stdin is closed, which ends a worker
        _, said = process.communicate()
    assert (process.returncode, said) == (STATUS[number], b"stopped\n" if STATUS[number] == 4 else b"interrupted\n")


RUN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), sys.exit(4)))
print("trains", flush=True)
time.sleep(60)
"""
SWEEP = """
import sys
from pathlib import Path
from zoo import command, signals, process

def work(_):
    with signals.raised():
        process.supervise([sys.executable, *sys.argv[2:]], Path(sys.argv[1]), lambda line: print(line, flush=True))
signals.leave(command.run_command(work, __import__("argparse").Namespace()))
"""


@pytest.mark.parametrize("number", STATUS)
def test_it_waits_for_what_it_started(number, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", SWEEP, str(log), "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"trains\n"
        process.send_signal(number)
        out, said = process.communicate()
    assert process.returncode == STATUS[number] and out == b"saved\n"
    lines = said.splitlines()
    assert lines[0].startswith(b"waiting for the run to save and stop") and len(lines) == 2
    assert not any(str(tmp_path) in path.read_text() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())


def test_two_chiefs_of_one_search(tmp_path, capsys, monkeypatch):
    code = "import sys; from pathlib import Path; from tuner.searches.folder import SearchFolder\n"
    code += "with SearchFolder(Path(sys.argv[1])).led(): print(1, flush=True); input()"
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(out)]
    monkeypatch.setattr(search, "_check", lambda *_: None)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"1\n"
        assert search.main(["configs/search/quick.json", "--out", str(out)]) == 2
        process.kill()
    said = capsys.readouterr().err
    assert f"out: this search is led by process {process.pid} on " in said and said.count("\n") == 1
    with SearchFolder(out).led():  # that of the dead process is taken over
        pass
    assert list(out.iterdir()) == []


def test_banners_are_kept_off_stderr_and_nothing_else(capfd):
    with backend._without_banners():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1795811260.644474    2050 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"2026-11-27 20:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This\n")
        os.write(2, b"To enable the following instructions: AVX2, rebuild\nDeprecationWarning: mine\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "DeprecationWarning: mine\n"


def test_a_compiler_that_is_not_a_command(monkeypatch):
    monkeypatch.setenv("CC", "'")
    assert environment._compiler() is None


def test_arguments_that_are_not_text(capsys):
    for arguments in (["a\0.json"], ["a.json", "--only", "model=\ud800"], ["\udc80.json"]):
        assert sweep.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and "an argument can't contain a NUL" in line


def test_the_second_signal_kills(tmp_path):
    stubborn = RUN.replace("time.sleep(0.5), ", "time.sleep(60), ")
    command = [sys.executable, "-c", SWEEP, str(tmp_path / "log"), "-c", stubborn]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"trains\n"
        process.terminate()
        assert process.stderr and process.stderr.readline().startswith(b"waiting")
        time.sleep(0.2)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 4
