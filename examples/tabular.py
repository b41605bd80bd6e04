"""ReLU, AReLU and Method 1 in a small network for tabular data: scikit-learn's diabetes data, which needs no network.

    KERAS_BACKEND=jax python examples/tabular.py

Each seed splits the data anew, in the same way for all activations, so that the difference from ReLU is one of pairs.
"""

import argparse
import time

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import keras_adaptact as ka

ACTIVATIONS = ("relu", "arelu", "method1")


def split(seed: int) -> list[np.ndarray]:
    """Training and test inputs (n, 10), training and test targets (n, 1), standardized by the training part."""
    x, y = load_diabetes(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y[:, None], test_size=0.25, random_state=seed)
    pairs = ((x_train, x_train), (x_train, x_test), (y_train, y_train), (y_train, y_test))
    return [((part - base.mean(axis=0)) / base.std(axis=0)).astype("float32") for base, part in pairs]


def error(activation: str, seed: int, epochs: int) -> float:
    """Root mean square error on the test part, in standard deviations of the target."""
    x_train, x_test, y_train, y_test = split(seed)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.layers.Input((x_train.shape[1],))])
    for _ in range(2):
        model.add(keras.layers.Dense(32))
        model.add(ka.get(activation))
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.003), "mse")
    model.fit(x_train, y_train, batch_size=len(x_train) // 5, epochs=epochs, verbose=0)
    return float(np.sqrt(np.mean((model.predict(x_test, verbose=0) - y_test) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--epochs", type=int, default=30, help="of each training (default: 30)")
    options = parser.parse_args()
    started = time.perf_counter()
    found = {
        name: np.array([error(name, seed, options.epochs) for seed in range(options.seeds)]) for name in ACTIVATIONS
    }
    print(f"test error over {options.seeds} seeds (mean ± standard deviation), and its difference from ReLU's")
    for name, errors in found.items():
        difference = errors - found["relu"]
        print(
            f"{name:8} {errors.mean():.3f} ± {errors.std(ddof=1):.3f}   "
            f"{difference.mean():+.3f} ± {difference.std(ddof=1):.3f}"
        )
    print(f"{time.perf_counter() - started:.0f} s on {keras.backend.backend()}")


if __name__ == "__main__":
    main()
