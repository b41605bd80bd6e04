"""Trains one trial, for tasks of a Ray cluster: `python -m tuner.trial FOLDER NAME POINT`."""

import json
import signal
import sys
from pathlib import Path

from tuner.searches.folder import SearchFolder
from zoo import backend, signals
from zoo.process import stop_without_parent


def main(argv: list[str]) -> int:
    stop_without_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(signals.STOPPED))
    path, number, point = argv
    folder = SearchFolder(Path(path))
    search, found = folder.open()
    backend.choose(found.backend)
    backend.load()

    from tuner.trials import run

    data_dir = Path(found.data_dir) if found.data_dir else None
    ended = run(folder, search, data_dir, number, json.loads(point), lambda *_: False)
    print(f"trial {number}: {ended.status} {'' if ended.value is None else ended.value} {ended.reason}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
