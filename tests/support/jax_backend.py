"""What tests/training/test_backends.py wants to know of JAX, found out in a process of its own.

Run with KERAS_BACKEND=jax and two virtual devices; argument: a folder with `weights.npz`, into
which `answers.json` and the exported models are written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from core.backend import import_keras
from core.datasets.phantom.generate import make_phantom

CLASSES = ("covid", "normal", "pneumonia")
SIZE, BATCH, RATE, MOMENTUM = 32, 8, 0.1, 0.9


def make_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 (n, SIZE, SIZE), int (n,)): phantoms of the classes by turns."""
    y = np.arange(n) % len(CLASSES)
    return np.stack([make_phantom(CLASSES[k], i, SIZE, i).pixels for i, k in enumerate(y)]), y


def build_tiny(*, norm: bool = True, dropout: float = 0.0):
    """A network with a convolution, a head as the project's own have, and few operations."""
    layers = import_keras().layers
    parts = [
        layers.Input((SIZE, SIZE, 1), name="image"),
        layers.Rescaling(1 / 255),
        layers.Conv2D(8, 3, strides=4, name="conv"),
        *([layers.BatchNormalization(name="bn")] if norm else []),
        layers.Activation("relu"),
        layers.GlobalAveragePooling2D(name="features"),
        *([layers.Dropout(dropout)] if dropout else []),
        layers.Dense(len(CLASSES), activation="softmax", dtype="float32", name="probabilities"),
    ]
    return import_keras().Sequential(parts, name="tiny")


def recipe(epochs: int, *, average: float = 0.0, augment: bool = False):
    """One stage on all layers."""
    from core.models.recipes import Recipe, Stage

    stage = Stage("all", epochs, 0.02, average=average, keep="last", augment=augment, patience=99)
    return Recipe(image_size_px=SIZE, stages=(stage,), batch_size=BATCH)


def fit(model, made_by, folder: Path, n: int = 2 * BATCH):
    """History of core.training.fit.fit_model on n phantoms; 7 others validate."""
    from core.training.data_loader import TrainingImages
    from core.training.fit import FitTask, fit_model

    pixels, y = make_images(n + 7)
    train, val = TrainingImages(pixels[:n], y[:n]), TrainingImages(pixels[n:], y[n:])
    return fit_model(model, made_by, FitTask(train, val, len(CLASSES), 0, "tiny"), folder)


def same_start(**options):
    """A tiny network whose first weights and dropout are the same every time."""
    import_keras().utils.set_random_seed(3)
    return build_tiny(**options)


def largest_difference(one: list, other: list) -> float:
    """Of two lists of arrays."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def forward(folder: Path) -> list:
    """Probabilities of the weights in weights.npz."""
    model = build_tiny()
    with np.load(folder / "weights.npz") as saved:
        model.set_weights([saved[str(i)] for i in range(len(saved.files))])
    return model.predict(make_images(6)[0][..., None].astype("float32"), verbose=0).tolist()


def averaged() -> float:
    """How far WeightAverage is from an average over weights that were read step by step."""
    keras = import_keras()
    from core.training.callbacks import WeightAverage

    images, y = make_images(24)
    x, onehot = images[..., None].astype("float32"), np.eye(len(CLASSES), dtype="float32")[y]
    by_hand, model = None, same_start(norm=False)
    model.compile(keras.optimizers.SGD(RATE), "categorical_crossentropy")
    for step in range(3):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        model.train_on_batch(x[rows], onehot[rows])
        weights = [w.astype("float64") for w in model.get_weights()]
        keep = min(MOMENTUM, step / (step + 10))
        before = by_hand or weights
        by_hand = [keep * b + (1 - keep) * w for b, w in zip(before, weights, strict=True)]
    model = same_start(norm=False)
    model.compile(keras.optimizers.SGD(RATE), "categorical_crossentropy")
    average = WeightAverage(model, MOMENTUM)
    model.fit(x, onehot, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[average])
    return largest_difference(average.values, by_hand)


def resumed(folder: Path) -> float:
    """How far a training that was stopped after one epoch ends from one that was not."""
    from core.training.callbacks import Recorder

    made_by = recipe(2, average=MOMENTUM, augment=True)
    whole = same_start(dropout=0.5)
    fit(whole, made_by, folder / "whole")
    usual = Recorder.on_epoch_end

    def stop(self, epoch, logs=None) -> None:
        usual(self, epoch, logs)
        raise KeyboardInterrupt

    Recorder.on_epoch_end = stop
    try:
        fit(same_start(dropout=0.5), made_by, folder / "stopped")
    except KeyboardInterrupt:
        Recorder.on_epoch_end = usual
    again = same_start(dropout=0.5)
    fit(again, made_by, folder / "stopped")
    return largest_difference(whole.get_weights(), again.get_weights())


def exported(folder: Path) -> float:
    """How far the served model is from the trained one; mixed precision, exported in float32."""
    from core.training.devices import prepare_devices
    from core.training.export import export_model, round_weights
    from core.training.openvino import in_float32

    prepare_devices(mixed="on")
    model = same_start()
    fit(model, recipe(1), folder / "export")
    model = in_float32(model)
    round_weights(model)
    difference = export_model(model, folder / "model", make_images(6)[0])
    np.save(folder / "expected.npy", model.predict(make_images(6)[0][..., None], verbose=0))
    return difference


def side_by_side(folder: Path) -> dict:
    """The same training on one device and on two; 21 images in batches of 8, 8 and 5."""
    keras = import_keras()
    from core.training.devices import prepare_devices

    keras.distribution.set_distribution(None)
    one = same_start(norm=False)
    first = fit(one, recipe(2), folder / "one", n=21)
    devices = prepare_devices()
    two = same_start(norm=False)
    second = fit(two, recipe(2), folder / "two", n=21)
    where = len(two.trainable_variables[0].value.sharding.device_set)
    names = ["loss", "accuracy", "val_loss", "val_accuracy"]
    return {
        "devices": devices,
        "where": where,
        "weights": largest_difference(one.get_weights(), two.get_weights()),
        "first": first[names].to_dict("list"),
        "second": second[names].to_dict("list"),
    }


def main(folder: Path) -> None:
    """Find everything out, one device first."""
    keras = import_keras()
    answers = {"backend": keras.backend.backend(), "forward": forward(folder)}
    answers |= {"averaged": averaged(), "resumed": resumed(folder)}
    answers |= {"side_by_side": side_by_side(folder), "exported": exported(folder)}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
