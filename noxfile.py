"""The tests: `nox` runs them all, `nox -s 'tests(jax)'` one backend's, each in an environment of its own."""

import itertools
import platform
import re
import tempfile
import tomllib
from pathlib import Path

import nox

nox.options.reuse_venv = "yes"
CONSTRAINTS = ("-c", "constraints.txt")
# The CPU build is half the download; elsewhere than on Linux x86-64 there is one build only.
IS_LINUX_X86 = (platform.system(), platform.machine()) == ("Linux", "x86_64")
PACKAGES = {"jax": "jax", "torch": "torch", "tensorflow": "tensorflow-cpu" if IS_LINUX_X86 else "tensorflow"}

# Runtimes that exported models are run in, and what writes files for them; with flax Keras's layers are modules of its.
RUNTIMES = ("ai-edge-litert", "flax", "jax2onnx", "onnx", "onnxruntime", "onnxscript", "openvino", "tf2onnx")

# Tests of what no backend has a part in: they run with torch, which compiles nothing.
ONCE = (
    "canaries",
    "committed_results",
    "compare",
    "comparisons",
    "config",
    "data",
    "folders",
    "journal",
    "judge",
    "layout",
    "oracles",
    "own_data",
    "report",
    "search_report",
    "secret",
    "signals",
    "space",
    "sweep",
)

# Tests of what versions of other packages could break: layers, surgery and folding, files, a run, a search.
OF_VERSIONS = (
    "tests/test_layers.py",
    "tests/test_surgery.py",
    "tests/test_folding.py",
    "tests/test_versions.py",
    "tests/test_space.py",
    "tests/test_train.py::test_a_run_leaves_its_folder",
    "tests/test_search.py::test_the_best_config_runs_as_it_is",
)

# Threads of two processes that wait for each other's processors make torch ten times slower.
QUIET = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*CONSTRAINTS, "mypy", "numpy", "pydantic", "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
@nox.parametrize("backend", list(PACKAGES), ids=list(PACKAGES))
def tests(session: nox.Session, backend: str) -> None:
    """All tests on one backend; the others aren't installed."""
    others = {"jax": ["optax"], "torch": ["optuna"]}.get(backend, [])  # whose own tools are used with ours
    session.install(*CONSTRAINTS, PACKAGES[backend], *others, "-e", ".[test]")
    ignored = [f"--ignore=tests/test_{name}.py" for name in ONCE if backend != "torch"]
    session.run("pytest", "-n", "auto", *ignored, *session.posargs, env={"KERAS_BACKEND": backend} | QUIET)


@nox.session(default=platform.system() == "Linux")
def nvrtc(session: nox.Session) -> None:
    """The kernels in CUDA through NVIDIA's compiler, which needs no GPU."""
    session.install(*CONSTRAINTS, PACKAGES["jax"], "nvidia-cuda-nvrtc-cu12", "-e", ".[test]")
    session.run("pytest", "-n", "auto", "tests/nvrtc.py", *session.posargs, env={"KERAS_BACKEND": "jax"} | QUIET)


@nox.session
def exchange(session: nox.Session) -> None:
    """Files of each backend opened on the others."""
    session.install(*CONSTRAINTS, *PACKAGES.values(), "-e", ".[test]")
    session.run("pytest", "tests/joint", env={"KERAS_BACKEND": "jax"} | QUIET)


@nox.session
def examples(session: nox.Session) -> None:
    """The notebooks; the one for a start installs the library by its own first line."""
    session.install(*CONSTRAINTS, "ipykernel", "matplotlib", "nbclient", "pandas")
    pinned = {"PIP_CONSTRAINT": str(Path("constraints.txt").resolve())}
    session.run("jupyter", "execute", "examples/analysis.ipynb", "examples/first-steps.ipynb", env=pinned)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in `site/`: a page or a link that is missing fails."""
    session.install(*CONSTRAINTS, "mkdocs-material", "mkdocstrings[python]", "ruff")  # which formats signatures
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    for page in Path("site").rglob("*.html"):
        if 'src="http' in page.read_text(encoding="utf-8"):
            session.error(f"{page} asks another server")


@nox.session
def wheel(session: nox.Session) -> None:
    """The packages that users install, built, checked, and used on each backend in an environment of its own."""
    session.install(*CONSTRAINTS, "build", "twine")
    for old in Path("dist").glob("keras_adaptact-*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", "dist")
    (built,), (source,) = Path("dist").glob("*.whl"), Path("dist").glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(built), str(source))
    check = Path("tests", "wheel.py").resolve()
    for backend, package in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            session.run("python", "-m", "venv", folder)
            python = str(Path(folder, "bin", "python"))
            session.run(python, "-m", "pip", "install", "-q", *CONSTRAINTS, str(built), package, external=True)
            with session.chdir(folder):
                session.run(python, str(check), env={"KERAS_BACKEND": backend} | QUIET, external=True)


@nox.session(default=False)
@nox.parametrize("backend", list(PACKAGES), ids=list(PACKAGES))
def oldest(session: nox.Session, backend: str) -> None:
    """Some tests with the oldest versions that pyproject.toml promises, whatever those warn of in each other."""
    bounds = Path(session.create_tmp(), "oldest.txt")
    bounds.write_text("".join(f"{name}=={version}\n" for name, version in lower_bounds().items()))
    session.install("-c", str(bounds), PACKAGES[backend], "-e", ".[test]")
    session.run("pip", "list")
    # Keras 3.15 wrote the model files there, and Keras 3.12 can't read its layers.
    chosen = ("-W", "default", "-k", "not (test_versions and (model or its_weights or trains_on_as))", *OF_VERSIONS)
    session.run("pytest", *chosen, *session.posargs, env={"KERAS_BACKEND": backend} | QUIET)


def lower_bounds() -> dict[str, str]:
    """The oldest version of each package that pyproject.toml promises, by name."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    promised = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    found = dict(match.groups() for each in promised if (match := re.match(r"([\w-]+)>=([\d.]+)", each)))
    return found | {"tensorflow-cpu": found["tensorflow"]}


@nox.session(default=False)
@nox.parametrize("backend", list(PACKAGES), ids=list(PACKAGES))
def newest(session: nox.Session, backend: str) -> None:
    """The same with the newest on the index; NumPy's and JAX's need `--force-python 3.12`."""
    session.install("--upgrade", "--upgrade-strategy", "eager", PACKAGES[backend], "-e", ".[test]")
    session.run("pip", "list")
    session.run("pytest", *OF_VERSIONS, *session.posargs, env={"KERAS_BACKEND": backend} | QUIET)


@nox.session(default=False)
@nox.parametrize("backend", list(PACKAGES), ids=list(PACKAGES))
def fuzz(session: nox.Session, backend: str) -> None:
    """Random models, replaced and folded: 300, or as `-- --graphs 3000 --seed 1000` says."""
    session.install(*CONSTRAINTS, PACKAGES[backend], "-e", ".[test]")
    what = session.posargs or ("--graphs", "300")
    session.run("python", "tests/fuzz.py", *what, env={"KERAS_BACKEND": backend} | QUIET)


@nox.session(default=False)
def runtimes(session: nox.Session) -> None:
    """Exported models in their runtimes, Keras's OpenVINO backend, and layers under flax: by name, as it takes long."""
    session.install(*CONSTRAINTS, *PACKAGES.values(), *RUNTIMES, "-e", ".[test]")
    for backend in PACKAGES:
        session.run("pytest", "tests/runtimes", *session.posargs, env={"KERAS_BACKEND": backend} | QUIET)
    under_flax = {"KERAS_BACKEND": "jax", "KERAS_NNX_ENABLED": "true"} | QUIET
    session.run("pytest", *(f"tests/test_{name}.py" for name in ("layers", "mixtures", "registry")), env=under_flax)


@nox.session(default=False)
def trackers(session: nox.Session) -> None:
    """What activations learn, in Weights & Biases, MLflow and trackio, without a network.

    Without constraints.txt, as these are bound to other versions of pandas, protobuf and such. The callback of Weights
    & Biases imports TensorFlow.
    """
    session.install(PACKAGES["tensorflow"], "wandb", "mlflow", "trackio", "-e", ".[test]")
    session.run("pip", "list")
    session.run("pytest", "tests/trackers", "-W", "default", env={"KERAS_BACKEND": "tensorflow"} | QUIET)


@nox.session(default=False)
def hub(session: nox.Session) -> None:
    """Networks of KerasHub, whose presets the tests write; its tensorflow-text brings TensorFlow along."""
    session.install(*CONSTRAINTS, PACKAGES["torch"], "-e", ".[test,hub]")
    session.run("pytest", "tests/hub", *session.posargs, env={"KERAS_BACKEND": "torch"} | QUIET)


@nox.session(default=False)
def cluster(session: nox.Session) -> None:
    """Sweeps and what follows a search on a Ray cluster of two nodes on this machine."""
    session.install(*CONSTRAINTS, PACKAGES["jax"], "-e", ".[test,cluster]")
    session.run("pytest", "tests/cluster", *session.posargs, env={"KERAS_BACKEND": "jax"} | QUIET)
