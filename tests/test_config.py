"""Configs: what loads, overrides, and the message for each mistake."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

import keras_adaptact as ka
from zoo.config.__main__ import PATH as SCHEMA
from zoo.config.loading import load
from zoo.config.schema import json_schema
from zoo.errors import ConfigError

ROOT = Path(__file__).parents[1]
WHOLE = """
{"$schema": "schema.json", "notes": "command, hardware, expected result",
 "model": {"name": "lenet", "dropout": 0.1},
 "activation": {"name": "method2", "normalization": "sum", "granularity": "layer", "weights": "learned"},
 "dataset": {"name": "cifar10", "limit": null, "validation": 0.1},
 "training": {"epochs": 150, "batch_size": 128, "optimizer": {"name": "sgd", "learning_rate": 0.05}, "seeds": [0]}}
"""


def write(tmp_path, content) -> Path:
    path = tmp_path / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refusal(path, overrides=()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_whole_config_loads_and_its_defaults_may_be_left_out(tmp_path):
    whole = load(write(tmp_path, WHOLE))
    short = load(write(tmp_path, {"activation": {"name": "method2"}}))
    assert whole.model_copy(update={"notes": "", "schema_": None}) == short
    assert whole.activation.options() == {"name": "method2"}


def test_a_resolved_config_loads_as_itself(tmp_path):
    first = load(write(tmp_path, WHOLE))
    assert load(write(tmp_path, first.resolved())) == first
    for name in ("alexnet", "googlenet", "resnet50", "densenet"):
        first = load(write(tmp_path, {"model": {"name": name, "stem": "reference"}}))
        assert first.model.name == name and load(write(tmp_path, first.resolved())) == first


def test_overrides(tmp_path):
    found = load(
        write(tmp_path, {}),
        [
            "training.epochs=3",
            "activation.name=arelu",
            "training.optimizer.learning_rate=0.5",
            "training.seeds=[1, 2]",
        ],
    )
    assert found.training.epochs == 3 and found.activation.name == "arelu"
    assert found.training.optimizer.learning_rate == 0.5 and found.training.seeds == [1, 2]
    assert load(write(tmp_path, {}), ["training.optimizer.name=adam"]).training.optimizer.learning_rate == 1e-3
    rules = {"activation": [{"sites": "conv*", "name": "arelu"}, {"sites": "*", "name": "relu"}]}
    assert load(write(tmp_path, rules), ["activation.1.name=tanh"]).activation[1].name == "tanh"


@pytest.mark.parametrize("option", ["atanh_a_initializer", "weights_regularizer", "atanh_2_a_initializer"])
def test_settings_of_parameters_are_options(option, tmp_path):
    found = load(write(tmp_path, {"activation": {"name": "method1", option: 0.5}}))
    assert found.activation.options() == {"name": "method1", option: 0.5}


@pytest.mark.parametrize(
    "content, path, words",
    [
        ({"trainig": {}}, "the file", "'trainig'; did you mean 'training'?"),
        ({"training": {"epoch": 3}}, "training", "'epoch'; did you mean 'epochs'?"),
        ({"training": {"epochs": "3"}}, "training.epochs", 'valid integer; found "3"'),
        ({"training": {"epochs": 2.5}}, "training.epochs", "integer"),
        ({"training": {"epochs": True}}, "training.epochs", "integer"),
        ({"training": {"epochs": 0}}, "training.epochs", "greater than or equal to 1; found 0"),
        (
            {"training": {"optimizer": {"learning_rate": -1}}},
            "training.optimizer.learning_rate",
            "greater than 0",
        ),
        ({"training": {"optimizer": {"name": "sdg"}}}, "training.optimizer", "'sgd', 'adam'"),
        (
            {"training": {"optimizer": {"name": "adam", "momentum": 0.9}}},
            "training.optimizer",
            "'momentum'; there are",
        ),
        ({"training": {"optimizer": {"sgd": {"momentum": 0.5}}}}, "training.optimizer", "unknown field 'sgd'; there"),
        ({"training": {"seeds": []}}, "training.seeds", "at least 1"),
        ({"training": {"seeds": [1, 1]}}, "training", "seeds must differ"),
        ({"training": {"batch_size": 100, "devices": 3}}, "training", "must be a multiple of devices 3"),
        ({"training": {"schedule": {"name": "linear"}}}, "training.schedule.name", "'cosine', 'constant', 'steps'"),
        ({"training": {"schedule": {"name": "steps", "epoch": [1]}}}, "training.schedule", "did you mean 'epochs'"),
        ({"training": {"schedule": {"name": "steps", "epochs": [9, 3]}}}, "training.schedule", "must rise"),
        ({"activation": {"name": "method2", "weights": {"from": "x"}}}, "activation.weights", "'from'; .*from_run"),
        (
            {"activation": {"name": "method2", "weights": [1, 1, 1], "normalization": "softmax"}},
            "activation",
            "applies to learned weights only",
        ),
        ({"training": {"dtype": "half"}}, "training.dtype", "'mixed_float16'"),
        (
            {"model": {"name": "lenets"}},
            "model.name",
            "one of 'lenet', 'alexnet', 'googlenet', 'resnet50', 'densenet'; found \"lenets\"",
        ),
        ({"model": {"name": None}}, "model.name", "'lenet', .*found null"),
        ({"model": {"name": "alexnet", "dropuot": 0.1}}, "model", "'dropuot'; did you mean 'dropout'?"),
        ({"model": {"name": "densenet", "width": 8}}, "model", "'width'; there are .*growth, bottleneck, compression"),
        ({"model": {"growth": 8}}, "model", "'growth'; there are name, norm, dropout"),
        ({"model": {"name": "resnet50", "stem": "imagenet"}}, "model.stem", "'reference' or 'cifar'"),
        ({"model": {"name": "resnet50", "blocks": [3, 0]}}, "model.blocks.1", "greater than or equal to 1"),
        ({"model": {"dropout": 1.0}}, "model.dropout", "less than 1"),
        ({"dataset": {"name": "mnists"}}, "dataset.name", "'cifar10', 'digits'"),
        ({"dataset": {"limit": 0}}, "dataset.limit", "greater than or equal to 1"),
        ({"activation": {"nane": "relu"}}, "activation.name", "required"),
        (
            {"activation": {"name": "relu", "granularty": "layer"}},
            "activation",
            "did you mean 'granularity'?",
        ),
        ({"activation": {"name": "method2", "weights": "fixed"}}, "activation.weights", "'learned'"),
        ({"activation": {"name": "method2", "weights": ["a"]}}, "activation.weights.0", "number"),
        ({"activation": []}, "activation", "at least 1"),
        ({"activation": [{"name": "relu"}]}, "activation.0.sites", "required"),
        (
            {"activation": [{"name": "relu", "sites": "*", "weigts": 1}]},
            "activation.0",
            "did you mean 'weights'?",
        ),
        ({"activation": "relu"}, "activation", 'found "relu"'),
        ({"metrics": {"report_batch": -1}}, "metrics.report_batch", "greater than or equal to 1"),
    ],
)
def test_a_mistake_is_named_by_its_path(content, path, words, tmp_path):
    file = write(tmp_path, content)
    message = refusal(file)
    assert message.startswith(f"{file}: {path}"), message
    assert re.search(words.replace("?", r"\?"), message), message


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("{", "not valid JSON: .*line 1 column 2"),
        ("[]", "expected a JSON object, found a list"),
        ('{"training": {"epochs": 1, "epochs": 2}}', "'epochs' is given twice"),
        ('{"model": {"dropout": NaN}}', "NaN is not a JSON number"),
        ('{"model": {"dropout": 1e999}}', "1e999 is not a JSON number"),
        ("[" * 100000, "not valid JSON"),
        ("\udcff", "can't be read"),
    ],
)
def test_files_that_are_not_configs(text, words, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert re.search(words, refusal(path))


def test_a_missing_file_suggests_the_nearest():
    assert "did you mean" in refusal(ROOT / "configs/lenett.json")
    assert "no such file" in refusal(ROOT / "nowhere/x.json")
    assert "can't be read" in refusal(ROOT / "configs")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["training.epochs"], "expected path=value"),
        (["training..epochs=1"], "expected path=value"),
        (["training.epochs=1", "training.epochs=2"], "given twice"),
        (["training.epohcs=1"], "training: unknown field 'epohcs'; did you mean 'epochs'.*--set"),
        (["training.epochs.x=1"], "no field 'x'|training.epochs: .*found"),
        (["training.seeds.3=1"], "there is no field '3' in a list of 1"),
        (["activation.normalisation=sum"], "did you mean 'normalization'"),
        (["training.epochs=many"], 'training.epochs: .*found "many".*--set'),
    ],
)
def test_a_bad_override(overrides, words, tmp_path):
    message = refusal(write(tmp_path, WHOLE), overrides)
    assert re.search(words, message), message


def test_the_committed_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == json_schema(ka.names()), "run python -m zoo.config"


@pytest.mark.parametrize("path", [p for p in (ROOT / "configs").glob("*.json") if p != SCHEMA], ids=str)
def test_every_config_loads_and_names_the_schema(path):
    content = json.loads(path.read_text())
    assert (path.parent / content["$schema"]).resolve() == SCHEMA
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert load(path).notes


@pytest.mark.parametrize(
    "content",
    [
        {"training": {"epoch": 3}},
        {"activation": {"name": "relv"}},
        {"activation": {"name": "relu", "granularty": "layer"}},
        {"activation": [{"name": "relu"}]},
        {"model": {"growth": 8}},
        {"model": {"name": "alexnet", "growth": 8}},
    ],
)
def test_editors_see_mistakes_too(content):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema(ka.names()))


def test_editors_accept_what_loads(tmp_path):
    rules = [
        {"sites": "conv*", "name": "method1", "atanh_a_initializer": 0.5},
        {"sites": "*", "name": "relu"},
    ]
    unnamed = {"model": {"dropout": 0.2}, "training": {"optimizer": {"learning_rate": 0.5}}}
    for content in (json.loads(WHOLE), {"activation": rules}, unnamed, {"model": {"name": "densenet", "growth": 8}}):
        jsonschema.validate(content, json_schema(ka.names()))
        load(write(tmp_path, content))
