"""Keras models, trained for some steps; prints a line of JSON for each: name, printed losses, weights' sums.

Run as `keras_cases.py [NAME…]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

FAR = bool(tf.config.list_physical_devices("GPU"))
if not FAR:  # Grappler fuses operators for the CPU that it leaves alone for a GPU, and fused ones round differently
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
CASES: dict[str, Callable[[], Any]] = {}


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    CASES[function.__name__] = function
    return function


def fit(model: Any, x: Any, y: Any, loss: Any = "mse", optimizer: Any = "adam", **more: Any) -> list[Any]:
    # Plain TensorFlow would compile with XLA only where it sees a GPU; both run the same operators.
    model.compile(optimizer=optimizer, loss=loss, metrics=["mae"], **more)
    history = model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0)
    scores = model.evaluate(x, y, verbose=0)
    predicted = model.predict(x[:4], verbose=0)
    return [history.history["loss"], scores, np.asarray(predicted, "float64").reshape(-1)[:8].tolist()]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


@case
def dense():
    keras.utils.set_random_seed(1)
    x = normal(64, 8)
    return fit(keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(1)]), x, x.sum(1, keepdims=True))


@case
def dense_op_by_op():
    keras.utils.set_random_seed(1)
    x = normal(64, 8)
    model = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(1)])
    return fit(model, x, x.sum(1, keepdims=True), jit_compile=False)


@case
def convolution():
    keras.utils.set_random_seed(1)
    x = normal(32, 12, 12, 3)
    model = keras.Sequential(
        [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(), layers.Flatten(),
         layers.Dropout(0.3), layers.Dense(1)]
    )  # fmt: skip
    return fit(model, x, x.mean((1, 2, 3))[:, None])


@case
def recurrent():
    keras.utils.set_random_seed(1)
    x = normal(32, 6, 4)
    return fit(
        keras.Sequential([layers.LSTM(5, return_sequences=True), layers.GRU(4), layers.Dense(1)]), x, x[:, 0, :1]
    )


@case
def attention():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 8))
    h = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    outputs = layers.Dense(1)(layers.Flatten()(layers.LayerNormalization()(h)))
    x = normal(32, 6, 8)
    return fit(keras.Model(inputs, outputs), x, x[:, 0, :1], optimizer=keras.optimizers.AdamW(0.01))


@case
def embedding():
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(2).integers(0, 20, (32, 5))
    model = keras.Sequential([layers.Embedding(20, 4), layers.Flatten(), layers.Dense(1)])
    return fit(model, x, x[:, :1].astype("float32"), optimizer="sgd")


@case
def callbacks_see_every_batch():
    keras.utils.set_random_seed(1)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([batch, *sorted(logs.items())])

    x = normal(64, 8)
    model = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    model.fit(x, x[:, :1], epochs=2, batch_size=16, shuffle=False, verbose=0, callbacks=[Watch()])
    model.evaluate(
        x,
        x[:, :1],
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_test_batch_end=lambda batch, logs: seen.append([batch, *sorted(logs.items())])
            )
        ],
    )
    return seen


@case
def what_is_printed():
    import contextlib
    import io
    import re

    keras.utils.set_random_seed(1)
    x = normal(64, 8)
    model = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    printed = []
    for verbose in (1, 2):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            model.fit(
                x, x[:, :1], epochs=2, batch_size=16, validation_data=(x, x[:, :1]), shuffle=False, verbose=verbose
            )
        printed += re.findall(r"Epoch \d/\d|val_\w+: [0-9.]+", text.getvalue())
    return printed


@case
def save_and_load():
    import os
    import tempfile

    keras.utils.set_random_seed(1)
    x = normal(32, 8)
    model = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    result = fit(model, x, x[:, :1])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        again = keras.models.load_model(path)
    return [*result, np.abs(again.predict(x, verbose=0) - model.predict(x, verbose=0)).max().item()]


def main() -> None:
    for name in sys.argv[1:] or CASES:
        try:
            result = CASES[name]()
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[:600]}"
        print(json.dumps([name, result], default=repr), flush=True)


if __name__ == "__main__":
    main()
