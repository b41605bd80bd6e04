"""Writes the JSON Schema of a config to configs/schema.json: `python -m zoo.config`."""

import sys
from pathlib import Path

from zoo import backend
from zoo.errors import UserError
from zoo.files import write_json

PATH = Path(__file__).parents[2] / "configs" / "schema.json"


def main() -> int:
    try:
        backend.choose()
        backend.load()
        import keras_adaptact as ka
        from zoo.config.schema import json_schema

        write_json(PATH, json_schema(ka.names()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
