"""What pictures show: the lines in them against formulas, and the files whole or absent."""

import itertools
import sys

import keras
import numpy as np
import pytest
from cases import CASES, evaluate
from keras import layers
from PIL import Image
from test_layers import trained

import keras_adaptact as ka


def model_of(*activations):
    """(n, 4) -> (n, 4)"""
    return keras.Sequential([layers.Input((4,)), *activations])


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def panels(figure):
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_curve_and_slope(case):
    layer = trained(case)
    layer.name = "site"
    (axes,) = panels(ka.plot_activations(layer))
    z, y = lines(axes)["curve"].T
    expected, slopes = evaluate(case, z, case.trained)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    smooth = np.all([abs(z - kink) > 0.1 for kink in (*case.kinks, -5, 5)], axis=0)
    np.testing.assert_allclose(lines(axes)["slope"][smooth, 1], slopes["z"][smooth], atol=5e-3)
    start, _ = evaluate(case, z, case.start)
    np.testing.assert_allclose(lines(axes)["curve at the start"][:, 1], start, rtol=1e-5, atol=1e-5)
    assert axes.get_title() == f"site\n{type(layer).__name__}" and axes.get_xlabel() == "z"


def test_real_inputs_lie_under_the_curves():
    model = model_of(ka.AReLU(name="one"), ka.AReLU(name="two"))
    x = np.linspace(-8, 2, 4000, dtype="float32").reshape(-1, 4)
    figure = ka.plot_activations(model, x)
    one, two = panels(figure)
    assert lines(one)["curve"][[0, -1], 0] == pytest.approx([-8, 2], abs=0.05)
    assert lines(two)["curve"][[0, -1], 0] == pytest.approx([0, 2], abs=0.05)
    below = [axes for axes in figure.axes if axes.patches]
    counts = [sum(bar.get_height() for bar in axes.patches) for axes in below]
    assert len(below) == 2 and counts == pytest.approx([4000, 4000], rel=0.01)
    again = ka.plot_activations(model, ka.observe(model, x))
    np.testing.assert_array_equal(lines(panels(again)[0])["curve"], lines(one)["curve"])


def test_inputs_all_alike():
    (axes,) = panels(ka.plot_activations(model_of(ka.AReLU()), np.full((8, 4), 3.0, "float32")))
    assert lines(axes)["curve"][[0, -1], 0].tolist() == [2.5, 3.5]


def test_channels():
    layer = ka.AReLU(granularity="channel", channels=40, name="wide")
    layer.b = np.linspace(0, 0.5, 40)
    (axes,) = panels(ka.plot_activations(layer))
    curves = [
        line.get_ydata() for line in axes.get_lines() if line.get_linestyle() == "-" and len(line.get_ydata()) > 2
    ]
    assert len(curves) == 16 and axes.get_title() == "wide\nAReLU, 16 of 40 channels"
    assert (curves[0][0], curves[-1][0]) == pytest.approx((0, -2.5))


def test_a_random_start_is_not_drawn():
    layer = ka.Swish(beta_initializer="random_normal")
    assert lines(panels(ka.plot_activations(layer))[0]).keys() >= {"curve", "slope"}
    assert "curve at the start" not in lines(panels(ka.plot_activations(layer))[0])


def test_a_picture_needs_no_display(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whose import chooses a display
    figure = ka.plot_activations(model_of(*(ka.get(case.spec) for case in CASES)), columns=3)
    assert len(panels(figure)) == len(CASES)
    figure.savefig(tmp_path / "all.png")
    picture = np.asarray(Image.open(tmp_path / "all.png").convert("RGB"))
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert np.all(picture == colour, axis=-1).sum() > 1000


def test_nothing_to_plot():
    with pytest.raises(ValueError, match="no trainable activations to plot"):
        ka.plot_activations(model_of(layers.ReLU()))


@pytest.fixture(scope="module")
def history():
    keras.utils.set_random_seed(0)
    model = model_of(ka.AReLU(name="one"), ka.Method2(granularity="channel", name="two"))
    model.compile("sgd", "mse")
    history = ka.ActivationHistory()
    model.fit(np.ones((32, 4)), np.zeros((32, 4)), epochs=6, verbose=0, callbacks=[history])
    return history


def test_animation(history, tmp_path):
    ka.animate_activations(history, tmp_path / "a.gif", milliseconds=50)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.format == "GIF" and image.n_frames == 7
        frames = []
        for i in range(7):
            image.seek(i)
            frames.append((np.asarray(image.convert("RGB"), "int16"), image.info["duration"]))
    assert [duration for _, duration in frames] == [50] * 6 + [500]
    assert all(np.abs(a - b).max() > 50 for (a, _), (b, _) in itertools.pairwise(frames))
    ka.animate_activations(history, tmp_path / "few.gif", frames=3)
    with Image.open(tmp_path / "few.gif") as image:
        assert image.n_frames == 3


def test_an_animation_is_whole_or_absent(history, tmp_path, monkeypatch):
    save = Image.Image.save

    def fail(self, file, **options):
        if options["format"] != "GIF":
            return save(self, file, **options)
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        ka.animate_activations(history, tmp_path / "a.gif", frames=2)
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_animated(history, tmp_path):
    with pytest.raises(ValueError, match="must have seen a call of `fit`"):
        ka.animate_activations(ka.ActivationHistory(), tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"`frames` must be an integer of 2 or more\. Received: 1"):
        ka.animate_activations(history, tmp_path / "a.gif", frames=1)


@pytest.mark.parametrize("package", ["matplotlib", "PIL"])
def test_a_package_is_missing(package, history, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        ka.animate_activations(history, tmp_path / "a.gif")


def test_a_history_that_was_recorded_is_animated(tmp_path):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation=ka.AReLU())])
    history = ka.ActivationHistory()
    history.record(model, 0)
    model.layers[0].activation.set_parameters(b=0.5)
    history.record(model, 1)
    ka.animate_activations(history, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 2
