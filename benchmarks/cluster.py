"""What a chief carries: simulated workers, killed at random with the chief, that report at once.

    KERAS_BACKEND=jax python benchmarks/cluster.py --out benchmarks/results/checks.json.xz

The chief is `python -m tuner.search` as it is; a worker is a gRPC client that imports no Keras, writes its trial's
outcome and reports it, as fast as the chief answers. Kills are SIGKILL, and who was killed is started again. At the end
each trial was begun and has ended exactly once. `--tree` names a checkout to measure in the place of this one; events a
second are those of the journal, begins and ends, of a part of the search without kills.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
ENOUGH = 1500.0  # seconds after which it counts as hung


def work(folder: Path, port: int, name: str) -> None:
    """A worker."""
    import grpc

    service, stub = _protos()
    calls = stub(grpc.insecure_channel(f"{HOST}:{port}"))
    again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    def ask(method: str, **fields):
        while True:
            try:
                return getattr(calls, method)(getattr(service, f"{method}Request")(**fields), timeout=30)
            except grpc.RpcError as error:
                if error.code() not in again:
                    raise
                if (folder / "ended.json").exists():  # it came late, as `tuner.search` finds out, too
                    sys.exit(0)
                time.sleep(0.2)

    while True:
        trial = ask("CreateTrial", tuner_id=name).trial
        status = trial.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[trial.status].name
        if status == "STOPPED":
            return
        if status != "RUNNING":
            time.sleep(0.1)
            continue
        value = random.Random(trial.trial_id).random()
        ask("UpdateTrial", trial_id=trial.trial_id, metrics={"objective": value}, step=1)
        outcome = {"status": "finished", "value": value, "values": [value], "curve": [value]}
        path = folder / "trials" / f"{trial.trial_id}.json"
        unfinished = path.with_name(f".{os.getpid()}.{path.name}")
        unfinished.write_text(json.dumps(outcome | {"reason": "", "seconds": 0.0}))
        unfinished.replace(path)
        ask("EndTrial", trial=trial)


def _protos():
    """KerasTuner's messages and stub without KerasTuner, which would import Keras."""
    found = find_spec("keras_tuner")
    assert found and found.submodule_search_locations
    for name, path in (("keras_tuner", ""), ("keras_tuner.src", "src")):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(found.submodule_search_locations[0], path))]
        sys.modules[name] = package
    from keras_tuner.src.protos.v4 import service_pb2, service_pb2_grpc

    return service_pb2, service_pb2_grpc.OracleStub


class Trial:
    """A search with its chief and its workers, as processes."""

    def __init__(self, tree: Path, folder: Path, trials: int, workers: int):
        self.tree, self.out, self.trials = tree, folder / "out", trials
        base = {"dataset": {"name": "digits"}, "training": {"epochs": 1}}
        space = [{"path": "training.optimizer.learning_rate", "float": [1e-4, 1.0], "log": True}]
        search = {"base": "base.json", "space": space, "trials": trials, "epochs": 1}
        if "confirm" in (tree / "tuner" / "space.py").read_text():
            search["confirm"] = 0
        self.search = folder / "search.json"
        (folder / "base.json").write_text(json.dumps(base))
        self.search.write_text(json.dumps(search))
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self.chief = self._chief()
        self.workers = {f"tuner{i}": self._worker(f"tuner{i}") for i in range(workers)}
        self.restarts = Counter[str]()

    def _chief(self) -> subprocess.Popen:
        role = {"KERASTUNER_TUNER_ID": "chief", "KERASTUNER_ORACLE_IP": HOST, "KERASTUNER_ORACLE_PORT": str(self.port)}
        command = [sys.executable, "-m", "tuner.search", str(self.search), "--out", str(self.out), "--resume"]
        log = (self.search.parent / "chief.log").open("a")
        return subprocess.Popen(command, cwd=self.tree, env=dict(os.environ) | role, stdout=log, stderr=log)

    def _worker(self, name: str) -> subprocess.Popen:
        arguments = ["--work", str(self.out), str(self.port), name]
        return subprocess.Popen([sys.executable, __file__, *arguments], env=dict(os.environ) | {"no_proxy": HOST})

    def events(self) -> list[dict]:
        """Of the journal, in lines or, of version 0.1.0, in one list; a line under way is left out."""
        with contextlib.suppress(OSError):
            lines = (self.out / "journal.jsonl").read_text().splitlines()
            events = []
            for line in lines:
                with contextlib.suppress(ValueError):
                    events.append(json.loads(line))
            return [event for event in events if event["event"] != "opened"]
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.out / "journal.json").read_text())
        return []

    def ended(self) -> int:
        return len(list((self.out / "trials").glob("[0-9]*.json")))

    def kill(self, generator: random.Random, chief: bool) -> None:
        """One of them, at random, which is started again."""
        name = "chief" if chief else generator.choice(sorted(self.workers))
        process = self.chief if chief else self.workers[name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.restarts["chief" if chief else "worker"] += 1
        if chief:
            self.chief = self._chief()
        else:
            self.workers[name] = self._worker(name)

    def stop(self) -> None:
        for process in (self.chief, *self.workers.values()):
            process.kill()
            process.wait()


def rate(tree: Path, trials: int, workers: int) -> dict:
    """Events a second, from the first trial's end to the last's, without kills."""
    with tempfile.TemporaryDirectory() as folder:
        found = Trial(tree, Path(folder), trials, workers)
        try:
            while not found.ended():
                time.sleep(0.05)
            began, first = time.perf_counter(), found.ended()
            while found.ended() < trials and time.perf_counter() - began < ENOUGH:
                time.sleep(0.05)
            seconds = time.perf_counter() - began
            return {"trials": found.ended(), "events_per_second": round(2 * (found.ended() - first) / seconds, 1)}
        finally:
            found.stop()


def survive(tree: Path, trials: int, workers: int, kills: int, chief_kills: int) -> dict:
    """What becomes of a search whose chief and workers are killed."""
    generator = random.Random(0)
    plan = sorted(
        (generator.uniform(0.02, 0.95) * trials, is_chief) for is_chief in (*[False] * kills, *[True] * chief_kills)
    )
    with tempfile.TemporaryDirectory() as folder:
        found = Trial(tree, Path(folder), trials, workers)
        try:
            began = time.perf_counter()
            for after, is_chief in plan:
                while found.ended() < after and time.perf_counter() - began < ENOUGH:
                    time.sleep(0.02)
                found.kill(generator, is_chief)
            status = found.chief.wait(ENOUGH)
            left = [name for name, process in found.workers.items() if process.wait(60)]
            return _counted(found, trials) | {"status": status, "failed_workers": left}
        finally:
            found.stop()


def _counted(found: Trial, trials: int) -> dict:
    events = found.events()
    ends = Counter(event["trial"] for event in events if event["event"] == "ended")
    points = {event["trial"]: json.dumps(event["values"]) for event in events if event["event"] == "begun"}
    return {
        "trials": trials,
        "killed": dict(found.restarts),
        "lost": trials - len(ends),
        "ended_twice": sum(count > 1 for count in ends.values()),
        "points_tried_twice": len(points) - len(set(points.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=3, metavar=("FOLDER", "PORT", "NAME"), help=argparse.SUPPRESS)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that is measured")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--kills", type=int, default=60, help="of workers")
    parser.add_argument("--chief-kills", type=int, default=5)
    parser.add_argument("--rate", type=int, nargs="*", default=[], metavar="TRIALS", help="of searches without kills")
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    if given.work:
        folder, port, name = given.work
        work(Path(folder), int(port), name)
        return
    found: dict = {"workers": given.workers, "processors": os.cpu_count(), "without_kills": []}
    for trials in given.rate:
        found["without_kills"].append(rate(given.tree, trials, given.workers))
        print(found["without_kills"][-1], flush=True)
    if given.kills or given.chief_kills:
        found["with_kills"] = survive(given.tree, given.trials, given.workers, given.kills, given.chief_kills)
        print(found["with_kills"], flush=True)
    if given.out:
        sys.path.insert(0, str(ROOT))
        import tables

        tables.write_part(given.out, found, "cluster")


if __name__ == "__main__":
    main()
