"""Makes what `v0.1.0.tar.xz` holds: `python make.py DIR` in a checkout of version 0.1.0 (commit d04d8ef):

    for backend in jax torch tensorflow; do KERAS_BACKEND=$backend PYTHONPATH=. python make.py DIR; done

Everything is tiny, on scikit-learn's digits. What 0.1.0 computed goes into `layers.json` and `expected.json`;
`tests/old.py` unpacks it, and `tests/test_versions.py` opens, resumes and reports it. The models in `layers/` are
zipped again with compression, and `platform` in the environments is shortened; the rest is as it was written. Besides:

* `optimizer/`: a model that was trained for two steps on JAX with `optimizer_for(model, AdamW(1e-2), 3.0)`, as
  `small()` in `tests/test_optimizers.py` makes it, and in `next.npz` its weights after the third;
* `channels/`: the same for parameters by channel, see `tests/test_versions.py`;
* `results/`: two folders of results that were committed with that version, without reports, logs and weights, and with
  the headers alone of `parameters.csv` and `mixing_weights.csv`.
"""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np

import keras_adaptact as ka
from tuner import report as search_report
from tuner import search
from zoo import config, evaluate, report, sweep, train
from zoo.training import Stopped

BACKEND = keras.config.backend()
LAYERS = {
    **{name: {"name": name} for name in ("asigmoid", "atanh", "arelu", "swish", "frelu", "pelu", "prelu")},
    **{name: {"name": name} for name in ("method1", "method2")},
    "adaptive": {"name": "adaptive", "function": "silu", "a_regularizer": "l2"},
    "mixture": {"name": "mixture", "members": ["gelu", "atanh", "sin"], "normalization": "none"},
    "method2-softmax": {"name": "method2", "normalization": "softmax"},
    "method1-fixed": {"name": "method1", "weights": [0.5, 0.25, 0.25]},
    "arelu-options": {"name": "arelu", "b_initializer": 0.25, "b_constraint": "non_neg"},
}
TINY = {
    "model": {"name": "densenet", "blocks": [1, 1], "growth": 2, "dropout": 0.1},
    "activation": {"name": "method1"},
    "dataset": {"name": "digits", "limit": 120, "test_limit": 50},
    "training": {"epochs": 4, "batch_size": 8, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
}
SWEEP = {"base": "tiny.json", "outputs": ["sound"], "axes": {"seed": [0], "activation": ["relu", "method2"]}}
SPACE = [
    {"name": "mixing", "path": "activation.weights", "choice": ["learned", {"label": "fixed", "value": None}]},
    {"path": "activation.weights", "name": "weights", "simplex": 3, "when": {"mixing": "fixed"}},
    {"name": "rate", "path": "training.optimizer.learning_rate", "choice": [0.01, 0.03]},
]
SEARCH = {"base": "tiny.json", "space": SPACE, "trials": 3, "epochs": 2, "seed": 4}


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.sin(np.arange(6 * 4 * 4 * 2, dtype="float32")).reshape(6, 4, 4, 2)
    return x, np.cos(np.arange(12, dtype="float32")).reshape(6, 2)


def layers(out: Path) -> None:
    """A model for each layer, with it by channel and by layer, compiled, and trained for a step."""
    found = {}
    x, y = data()
    for name, spec in LAYERS.items():
        keras.utils.set_random_seed(1)
        inside = ka.get(spec)
        model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 2, name="conv")])
        model.add(ka.get(spec | {"granularity": "channel"}, name="by_channel"))
        model.add(keras.layers.GlobalAveragePooling2D(name="pool"))
        model.add(keras.layers.Dense(2, activation=inside, name="inside"))
        model.compile(ka.optimizer_for(model, "adam", learning_rate_factor=10.0), "mse")
        losses = [float(model.train_on_batch(x, y))]
        outputs = np.asarray(model.predict(x, verbose=0)).tolist()
        if BACKEND == "jax":
            model.save(out / f"{name}.keras")
            pack(out / f"{name}.keras", out / "layers" / f"{name}.keras")
        losses.append(float(model.train_on_batch(x, y)))
        found[name] = {"outputs": outputs, "losses": losses}
    if BACKEND == "jax":
        (out / "layers.json").write_text(json.dumps(found) + "\n")


def pack(source: Path, target: Path) -> None:
    """The same files in a zip file that is a sixth as large."""
    with zipfile.ZipFile(source) as stored, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    source.unlink()


def runs(out: Path, folder: Path) -> dict:
    """A whole run; and the same one, cut off in its third epoch."""
    settings = config.load(folder / "tiny.json")
    whole = folder / "whole"
    train.main([str(folder / "tiny.json"), "--out", str(whole)])
    found = {name: (whole / name).read_text() for name in ("history.csv", "mixing_weights.csv", "metrics.json")}
    found["evaluation"] = evaluate.evaluate(whole)
    if BACKEND == "jax":
        keep(whole, out / "finished", but=("evaluation-test.json", "confusion-test.png"))
    asked = iter(range(100))
    try:
        train.run(settings, folder / "cut", argv=["python", "-m", "zoo.train", "tiny.json"],
                  is_over=lambda: next(asked) > 10)  # fmt: skip
    except Stopped:
        keep(folder / "cut", out / f"cut-{BACKEND}")
    return found


def several(out: Path, folder: Path) -> dict:
    """A sweep of two runs, and a search of three trials."""
    assert sweep.main([str(folder / "tiny-sweep.json"), "--out", str(folder / "sweep")]) == 0
    assert search.main([str(folder / "tiny-search.json"), "--out", str(folder / "search")]) == 0
    for name, command in (("sweep", report), ("search", search_report)):
        keep(folder / name, out / name, but=("model.keras", "checkpoint.npz") if name == "sweep" else ("model.keras",))
        assert command.main([str(folder / name), "--out", str(folder / f"{name}-report")]) == 0
    tables = {"sweep": "sound-densenet.csv", "search": "ranking.csv"}
    return {f"{name}-report": (folder / f"{name}-report" / table).read_text() for name, table in tables.items()}


def keep(source: Path, target: Path, but: tuple[str, ...] = ()) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*but, "report"))


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    (out / "layers").mkdir(parents=True, exist_ok=True)
    folder = Path(f"old-{BACKEND}")
    folder.mkdir()
    for name, content in (("tiny", TINY), ("tiny-sweep", SWEEP), ("tiny-search", SEARCH)):
        (folder / f"{name}.json").write_text(json.dumps(content))
        shutil.copy(folder / f"{name}.json", out)
    layers(out)
    path = out / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    expected[BACKEND] = runs(out, folder)
    if BACKEND == "jax":
        expected["reports"] = several(out, folder)
    path.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
