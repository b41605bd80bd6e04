"""KerasTuner's chief, which hands out trials over gRPC, and its workers, which train them; both end reliably."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

from tuner.searches.oracle import STOPPED, JournaledOracle
from tuner.workers import secret
from zoo.errors import UserError

CALLS = 512  # at a time; a worker has at most two
SILENT = 120.0  # seconds without a call after which a worker counts as dead
BEAT = 10.0  # seconds between two heartbeats
PATIENCE = 300.0  # seconds that a worker waits for a chief, and a chief for a worker
FAREWELL = 15.0  # seconds that a chief waits at the end for its workers


class Chief:
    """Serves an oracle to workers until it has no more trials.

    KerasTuner's own loop waits forever if a worker died, and 20 s if none did.
    """

    def __init__(self, oracle: JournaledOracle, host: str, port: str):
        self.oracle, address = oracle, f"{host}:{port}"
        gate = secret.Gate(secret.of(host))
        # The oracle takes one call at a time; the others wait in threads, and heartbeats overtake them.
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=CALLS), interceptors=[gate])
        servicer = oracle_chief.OracleServicer(oracle)
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, self.server)
        try:
            self.port = self.server.add_insecure_port(address)
        except RuntimeError:
            raise UserError(
                f"{address}: can't listen here; is it an address of this machine, and used by no other chief?"
            ) from None
        self.server.start()
        self.began = time.monotonic()

    def serve(self, silent: float, tick: Callable[[], bool]) -> bool:
        """Returns True when the search is over, or False when `tick`, called repeatedly, returns False."""
        while not self.oracle.is_over:
            time.sleep(0.2)
            if self.oracle.trouble:
                raise self.oracle.trouble
            for name in self.oracle.release(silent):
                print(f"trial {name}: no call of its worker for {silent:.0f} s; another one restarts it", flush=True)
            if not tick():
                return False
        return True

    def is_forsaken(self, patience: float = PATIENCE) -> bool:
        """Whether no worker has called for `patience` seconds."""
        return time.monotonic() - max([self.began, *self.oracle.heard.values()]) > patience

    def stop(self) -> None:
        """Stops after every worker was notified that the search is over, or after a timeout."""
        deadline = time.monotonic() + FAREWELL
        while self.oracle.is_over and self.oracle.tuner_ids and time.monotonic() < deadline:
            time.sleep(0.1)
        self.server.stop(grace=1.0).wait()


class _Client(oracle_client.OracleClient):
    """Retries if the chief disappears during a call: all calls can be repeated."""

    def __init__(self, oracle):
        super().__init__(oracle)
        self.stub: Any = secret.Carrying(self.stub, secret.of(os.environ["KERASTUNER_ORACLE_IP"]))

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if name not in ("create_trial", "update_trial", "end_trial", "get_trial"):
            return found

        def patient(*args, **kwargs):
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    return found(*args, **kwargs)
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                        raise
                    time.sleep(1.0)

        return patient


class Worker(keras_tuner.engine.base_tuner.BaseTuner):
    """Requests trials from a chief and runs them, until there are no more.

    Args:
        run: called with a trial's name, the values of its hyperparameters and a function that takes an epoch and the
            objective after it and returns whether to stop.
        at_work: called with the name of each trial when it begins, and None after it.

    Raises:
        UserError: if no chief answers.
    """

    def __init__(self, run: Callable[[str, dict[str, Any], Callable[[int, float], bool]], None], at_work):
        super().__init__(keras_tuner.oracles.RandomSearchOracle(objective=keras_tuner.Objective("objective", "max")))
        self.run, self.at_work = run, at_work
        oracle_client.TIMEOUT = PATIENCE  # KerasTuner waits an hour
        self.oracle: Any = _Client(self.oracle._oracle)
        self.last_ask = 0.0
        self.is_alone = False  # after an unanswered call, until the end of the trial

    def save(self) -> None: ...

    def reload(self) -> None: ...

    @property
    def project_dir(self) -> str:
        return str(self.directory)  # KerasTuner creates an empty untitled_project/ in the working directory

    def search(self, *args, **kwargs) -> None:
        try:
            super().search(*args, **kwargs)
        except grpc.RpcError as error:
            address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
            is_away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            why = f"no chief answers ({error.code().name})" if is_away else f"refused: {error.details()}"
            raise UserError(f"{address}: {why}") from None

    def pre_create_trial(self) -> None:
        # KerasTuner polls without a pause while it waits for other workers' trials.
        time.sleep(max(0.0, self.last_ask + 0.3 - time.monotonic()))
        self.last_ask = time.monotonic()

    def _try_run_and_update_trial(self, trial, *args, **kwargs) -> None:
        self.at_work(trial.trial_id)
        self.is_alone = False
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(trial.trial_id, over), daemon=True)
        beat.start()
        try:
            self.run(trial.trial_id, trial.hyperparameters.values, lambda *at: self._is_enough(trial.trial_id, *at))
        finally:
            over.set()
        trial.status = "COMPLETED"  # the chief reads the outcome

    def on_trial_end(self, trial) -> None:
        super().on_trial_end(trial)
        self.at_work(None)

    def _is_enough(self, trial_id: str, epoch: int, value: float) -> bool:
        if self.is_alone:
            return False
        try:
            return self.oracle.update_trial(trial_id, {"objective": value}, step=epoch).status == STOPPED
        except grpc.RpcError:  # the trial is trained to its end; it hasn't failed
            self.is_alone = True
            return False

    def _beat(self, trial_id: str, over: threading.Event) -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(grpc.RpcError):  # the chief may come back
                self.oracle.get_trial(trial_id)
