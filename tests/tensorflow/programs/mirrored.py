"""MirroredStrategy over two devices: far ones, or the CPU cut in two. Prints a line of JSON for each case."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

FAR = bool(tf.config.list_physical_devices("GPU"))
if not FAR:
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
DEVICES = ["/GPU:0", "/GPU:1"] if FAR else ["/CPU:0", "/CPU:1"]
CASES: dict[str, Callable[[], Any]] = {}


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    CASES[function.__name__] = function
    return function


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


@functools.cache
def strategy() -> Any:  # one: TensorFlow's own collectives fail under a second one in a process
    return tf.distribute.MirroredStrategy(DEVICES)


def values(of: Any, result: Any) -> list[Any]:
    return [one.numpy().tolist() for one in of.experimental_local_results(result)]


@case
def fit():
    keras.utils.set_random_seed(1)
    x = normal(64, 8)
    with strategy().scope():
        model = keras.Sequential([keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
        model.compile(optimizer="adam", loss="mse")
    history = model.fit(x, x.sum(1, keepdims=True), epochs=2, batch_size=16, shuffle=False, verbose=0)
    return [history.history["loss"], model.predict(x[:4], verbose=0).tolist()]


@case
def custom_loop():
    of = strategy()
    x = normal(32, 4)
    data = of.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(8))
    with of.scope():
        weights = tf.Variable(tf.zeros([4, 1]))
        bias = tf.Variable(tf.constant([0.5]))

    def replica(features, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(features @ weights + bias - targets))
        gradients = tape.gradient(loss, [weights, bias])
        context = tf.distribute.get_replica_context()
        for variable, gradient in zip([weights, bias], context.all_reduce("mean", gradients)):
            variable.assign_sub(0.1 * gradient)
        return loss

    @tf.function
    def step(batch):
        losses = of.run(replica, args=batch)
        return of.reduce("SUM", losses, axis=None), of.reduce("MEAN", losses, axis=None)

    losses = [[float(part) for part in step(batch)] for batch in data]
    return [losses, values(of, weights), values(of, bias)]


@case
def reductions():
    of = strategy()

    @tf.function
    def everything():
        def replica():
            context = tf.distribute.get_replica_context()
            mine = tf.cast(context.replica_id_in_sync_group, tf.float32) + tf.constant([[1.0, 2.0], [3.0, 4.0]])
            return [context.all_reduce("sum", mine), context.all_reduce("mean", mine), context.all_gather(mine, axis=0)]

        return of.run(replica)

    return [values(of, part) for part in everything()]


@case
def eager_reductions():
    of = strategy()
    each = of.experimental_distribute_values_from_function(lambda c: tf.ones([3]) * (c.replica_id_in_sync_group + 1.0))
    return [of.reduce(how, each, axis=None).numpy().tolist() for how in ("SUM", "MEAN")] + [
        of.gather(each, axis=0).numpy().tolist()
    ]


@case
def variables_are_the_same_everywhere():
    of = strategy()
    with of.scope():
        kept = tf.Variable(normal(3, 3))
        summed = tf.Variable(
            0.0, aggregation=tf.VariableAggregation.SUM, synchronization=tf.VariableSynchronization.ON_READ
        )
    kept.assign_add(tf.ones([3, 3]))

    @tf.function
    def count():
        of.run(lambda: summed.assign_add(1.5))

    count()
    return [values(of, kept), float(summed.read_value())]


@case
def large_tensors():
    of = strategy()
    x = normal(300, 400)

    @tf.function
    def both():
        return of.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.constant(x) * 2))

    return [float(tf.reduce_sum(one)) for one in of.experimental_local_results(both())]


def main() -> None:
    for name in sys.argv[1:] or CASES:
        try:
            result = CASES[name]()
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[:900]}"
        print(json.dumps([name, result], default=repr), flush=True)


if __name__ == "__main__":
    main()
