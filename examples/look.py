"""What activations learn on handwritten digits: tables, pictures and an animation.

    KERAS_BACKEND=jax python examples/look.py --out runs/look

Writes activations.png, activations.gif and activations.csv. Needs `pip install matplotlib pillow scikit-learn`.
"""

import argparse
import time
from pathlib import Path

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_adaptact as ka


def build() -> keras.Model:
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation=ka.AReLU(), name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", name="conv2"),
            ka.Method1(granularity="channel", name="conv2_activation"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation=ka.Method2(), name="dense"),
            keras.layers.Dense(10, name="classes"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/look"), help="the folder (default: runs/look)")
    parser.add_argument("--epochs", type=int, default=12, help="of training (default: 12)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    x, y = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype("float32").reshape(-1, 8, 8, 1)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)

    keras.utils.set_random_seed(0)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    history = ka.ActivationHistory(options.out / "activations.csv")
    model.fit(x_train, y_train, batch_size=64, epochs=options.epochs, callbacks=[history], verbose=0)
    accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    print(f"accuracy on {len(x_test)} test images after {options.epochs} epochs: {accuracy:.3f}")

    inputs = ka.observe(model, x_test)
    print("nearest known function over the inputs that are seen, and what is left of the spread:")
    for site, layer in {
        "conv1": model.get_layer("conv1").activation,
        "dense": model.get_layer("dense").activation,
    }.items():
        as_it_is, rescaled = (ka.nearest(layer, inputs[site], affine=affine)[0] for affine in (False, True))
        print(
            f"  {site}: {as_it_is['function']} ({as_it_is['relative_error']:.3f}); scaled and shifted "
            f"{rescaled['function']} ({rescaled['relative_error']:.3f})"
        )
    weights = [row for row in ka.mixing_weights(model) if row["site"] == "dense"]
    print("mixing weights of dense:", ", ".join(f"{row['member']} {row['weight']:.3f}" for row in weights))

    ka.plot_activations(model, inputs).savefig(options.out / "activations.png", dpi=120)
    ka.animate_activations(history, options.out / "activations.gif")
    print(f"{options.out}: {', '.join(sorted(path.name for path in options.out.iterdir()))}")
    print(f"{time.perf_counter() - started:.0f} s on {keras.backend.backend()}")


if __name__ == "__main__":
    main()
