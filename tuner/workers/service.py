"""KerasTuner's chief and its workers, so that they end: one hands trials out over gRPC, the others train them."""

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

CALLS = 512  # at a time; workers have two each at most
SILENT = 120.0  # seconds after which a worker that says nothing is taken for dead
BEAT = 10.0  # seconds between two signs of life
PATIENCE = 300.0  # seconds that a worker waits for a chief, and a chief for a worker
FAREWELL = 15.0  # seconds that a chief waits at the end, to tell every worker


class Chief:
    """Serves an oracle to workers until it has no more trials.

    KerasTuner's own loop waits for ever where a worker died, and 20 s where none did.
    """

    def __init__(self, oracle: JournaledOracle, host: str, port: str):
        self.oracle, address = oracle, f"{host}:{port}"
        gate = secret.Gate(secret.of(host))
        # The oracle takes one call at a time: the others wait, each in a thread, and signs of life overtake them.
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=CALLS), interceptors=[gate])
        servicer = oracle_chief.OracleServicer(oracle)
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, self.server)
        try:
            self.port = self.server.add_insecure_port(address)
        except RuntimeError:
            raise UserError(f"{address}: can't be listened at; is it this machine's, and no other chief's?") from None
        self.server.start()
        self.began = time.monotonic()

    def serve(self, silent: float, tick: Callable[[], bool]) -> bool:
        """Until the search is over: true; or `tick`, asked all the time, says that there is no hope: false."""
        while not self.oracle.is_over:
            time.sleep(0.2)
            if self.oracle.trouble:
                raise self.oracle.trouble
            for name in self.oracle.release(silent):
                print(
                    f"trial {name}: its worker was silent for {silent:.0f} s; another one begins it again", flush=True
                )
            if not tick():
                return False
        return True

    def is_forsaken(self, patience: float = PATIENCE) -> bool:
        """Whether no worker has said anything for so long."""
        return time.monotonic() - max([self.began, *self.oracle.heard.values()]) > patience

    def stop(self) -> None:
        """Once every worker heard that the search is over, or long enough after."""
        deadline = time.monotonic() + FAREWELL
        while self.oracle.is_over and self.oracle.tuner_ids and time.monotonic() < deadline:
            time.sleep(0.1)
        self.server.stop(grace=1.0).wait()


class _Client(oracle_client.OracleClient):
    """Asks again where the chief went away in mid-call: every call may be repeated."""

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
    """Asks a chief for trials, and has each run, until there are no more.

    Args:
        run: told a trial's number, its hyperparameters' values and a function that takes an epoch and the objective
            after it and says whether that is enough.
        at_work: told which trial is begun, and None after it.

    Raises:
        UserError: where no chief answers.
    """

    def __init__(self, run: Callable[[str, dict[str, Any], Callable[[int, float], bool]], None], at_work):
        super().__init__(keras_tuner.oracles.RandomSearchOracle(objective=keras_tuner.Objective("objective", "max")))
        self.run, self.at_work = run, at_work
        oracle_client.TIMEOUT = PATIENCE  # KerasTuner waits for an hour
        self.oracle: Any = _Client(self.oracle._oracle)
        self.last_ask = 0.0
        self.is_alone = False  # since a call went without an answer, until the trial's end

    def save(self) -> None: ...

    def reload(self) -> None: ...

    @property
    def project_dir(self) -> str:
        return str(self.directory)  # KerasTuner makes an empty untitled_project/ wherever it is started

    def search(self, *args, **kwargs) -> None:
        try:
            super().search(*args, **kwargs)
        except grpc.RpcError as error:
            address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
            is_away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            why = f"no chief answers ({error.code().name})" if is_away else f"refused: {error.details()}"
            raise UserError(f"{address}: {why}") from None

    def pre_create_trial(self) -> None:
        # KerasTuner asks without a pause while other workers' trials must end first.
        time.sleep(max(0.0, self.last_ask + 0.3 - time.monotonic()))
        self.last_ask = time.monotonic()

    def _try_run_and_update_trial(self, trial, *args, **kwargs) -> None:
        self.at_work(trial.trial_id)
        self.is_alone = False
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(trial.trial_id, over), daemon=True)
        beat.start()
        try:
            self.run(trial.trial_id, trial.hyperparameters.values, lambda *told: self._is_enough(trial.trial_id, *told))
        finally:
            over.set()
        trial.status = "COMPLETED"  # how it went is in the outcome, which the chief reads

    def on_trial_end(self, trial) -> None:
        super().on_trial_end(trial)
        self.at_work(None)

    def _is_enough(self, trial_id: str, epoch: int, value: float) -> bool:
        if self.is_alone:
            return False
        try:
            return self.oracle.update_trial(trial_id, {"objective": value}, step=epoch).status == STOPPED
        except grpc.RpcError:  # the trial is trained to its end, and no failure
            self.is_alone = True
            return False

    def _beat(self, trial_id: str, over: threading.Event) -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(grpc.RpcError):  # a chief that is away may come back
                self.oracle.get_trial(trial_id)
