"""Runs a worker; `tuner.search` starts it: `python -m tuner.worker FOLDER`."""

import sys
from pathlib import Path

from tuner.workers import processes
from zoo.errors import UserError


def main(argv: list[str]) -> int:
    processes.end_with_parent()
    processes.take_share()
    try:
        return _search(Path(argv[0]))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return processes.GAVE_UP


def _search(path: Path) -> int:
    import os

    from tuner.searches.folder import SearchFolder
    from zoo import backend

    folder = SearchFolder(path)
    search, found = folder.open()
    backend.choose(found.backend)
    backend.load()

    from tuner import trials
    from tuner.workers.service import Worker

    data_dir = Path(found.data_dir) if found.data_dir else None
    name = os.environ["KERASTUNER_TUNER_ID"]

    def run(number, point, is_enough):
        ended = trials.run(folder, search, data_dir, number, point, is_enough)
        print(f"trial {number}: {ended.status} {'' if ended.value is None else ended.value} {ended.reason}", flush=True)

    Worker(run, lambda number: folder.at_work(name, number)).search()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
