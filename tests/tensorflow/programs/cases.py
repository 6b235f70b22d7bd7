"""Small programs, each a function that gives what it computed. Prints a line of JSON for each: its name and the values.

Run as `cases.py [NAME…]`; a case that raises prints its error and the next one goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

FAR = bool(tf.config.list_physical_devices("GPU"))
CASES: dict[str, Callable[[], Any]] = {}


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    CASES[function.__name__] = function
    return function


def data_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def data(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(data_of(*shape, seed=seed))


@case
def arithmetic():
    a, b = data(4, 5), data(5, 3, seed=1)
    c = tf.matmul(a, b) + 1.0
    return [c, tf.reduce_sum(c, axis=1), tf.nn.softmax(c), tf.transpose(c)[1:, :2], tf.argmax(c, axis=1)]


@case
def shapes_that_depend_on_values():
    x = data(10)
    return [tf.boolean_mask(x, x > 0), tf.where(x > 0), tf.unique(tf.cast(x * 2, tf.int64))[0]]


@case
def large_uploads_and_downloads():
    x = data(300, 400)
    return [tf.reduce_sum(x * 2), (x + x)[7, :5], tf.concat([x, x], 0)[599, 399]]


@case
def empty_tensors():
    x = tf.zeros([0, 3])
    return [tf.concat([x, tf.ones([2, 3])], 0), tf.reduce_sum(x, 0), tf.shape(x + 1.0)]


@case
def variables():
    v = tf.Variable(data(3, 3))
    v.assign_add(tf.ones([3, 3]))
    v.assign_sub(v * 0.5)
    v[1].assign([7.0, 8.0, 9.0])
    table = tf.Variable(data(6, 2))
    table.scatter_nd_update([[1], [3]], [[1.0, 2.0], [3.0, 4.0]])
    return [v, v.is_initialized() if hasattr(v, "is_initialized") else True, tf.gather(table, [1, 3]), table]


@case
def strings_and_tables():
    words = tf.constant(["a", "b", "c"])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, tf.constant([1, 2, 3], tf.int64)), -1)
    return [tf.cast(table.lookup(tf.constant(["c", "x"])), tf.float32) * 2.0, tf.strings.length(words)]


@case
def stateless_random():
    return [tf.random.stateless_normal([4], [1, 2]), tf.random.stateless_uniform([3], [3, 4])]


@case
def seeded_random():
    tf.random.set_seed(5)
    return [tf.random.normal([3]), tf.random.uniform([3]), tf.random.normal([3])]


@case
def random_generator():
    generator = tf.random.Generator.from_seed(11)
    return [generator.normal([3]), generator.uniform([2])]


@case
def plain_function():
    @tf.function
    def f(x, y):
        z = tf.matmul(x, y)
        if tf.reduce_sum(z) > 0:
            z = z * 2.0
        for _ in tf.range(3):
            z = z + 1.0
        return z, tf.reduce_mean(z)

    return [*f(data(3, 4), data(4, 3, seed=2)), *f(data(2, 4), data(4, 2, seed=3))]


@case
def compiled_function():
    v = tf.Variable(1.0)

    @tf.function(jit_compile=FAR)  # plain CPU TensorFlow compiles with XLA, which rounds differently
    def f(x):
        v.assign_add(tf.reduce_mean(x))
        return tf.nn.relu(x) * v, tf.reduce_sum(x)

    return [*f(data(3, 4)), *f(data(3, 4, seed=1)), *f(data(2, 2)), v]


@case
def gradients():
    w = tf.Variable(data(4, 2))
    x = data(3, 4, seed=1)
    with tf.GradientTape(persistent=True) as tape:
        y = tf.tanh(x @ w)
        loss = tf.reduce_mean(y**2)
    return [tape.gradient(loss, w), tape.jacobian(y, w)[0, 0]]


@case
def second_gradient():
    x = tf.Variable(2.0)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = x**3
        first = inner.gradient(y, x)
    return [first, outer.gradient(first, x)]


def train(step_decorator: Callable[[Any], Any]) -> list[Any]:
    w, b = tf.Variable(data(8, 1)), tf.Variable(tf.zeros([1]))
    x = data(32, 8, seed=4)
    y = tf.reduce_sum(x, 1, keepdims=True)

    @step_decorator
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((x @ w + b - y) ** 2)
        for variable, gradient in zip([w, b], tape.gradient(loss, [w, b]), strict=True):
            variable.assign_sub(0.1 * gradient)
        return loss

    return [*[step() for _ in range(10)], w, b]


@case
def custom_loop_eager():
    return train(lambda f: f)


@case
def custom_loop_function():
    return train(tf.function)


@case
def custom_loop_compiled():
    # Compiled by XLA plain TensorFlow rounds differently; the worker runs the operators one by one.
    return train(tf.function(jit_compile=True) if FAR else lambda f: f)


@case
def while_gradient():
    @tf.function
    def f(x):
        y = x
        for _ in tf.range(4):
            y = tf.sin(y) * 2.0
        return y

    x = tf.Variable(data(3))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(f(x))
    return [y, tape.gradient(y, x)]


@case
def tensor_array():
    @tf.function
    def f(x):
        items = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
        for i in tf.range(4):
            items = items.write(i, x * tf.cast(i, tf.float32))
        return items.stack()

    return [f(data(3)), tf.map_fn(lambda v: v * 2.0, data(4, 2)), tf.scan(lambda a, v: a + v, data(4, 2))]


@case
def embeddings_with_sparse_gradients():
    table = tf.Variable(data(10, 4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 3, 3]) ** 2)
    gradient = tape.gradient(loss, table)
    return [loss, tf.convert_to_tensor(gradient)]


@case
def linear_algebra():
    x = data(6, 6) + 5.0 * tf.eye(6)
    return [tf.linalg.det(x), tf.linalg.inv(x)[0], tf.linalg.cholesky(x @ tf.transpose(x))[2]]


@case
def ragged():
    r = tf.ragged.constant([[1.0, 2.0], [], [3.0]])
    return [tf.reduce_sum(r, axis=1), (r * 2.0).to_tensor()]


@case
def pipeline():
    dataset = tf.data.Dataset.from_tensor_slices(np.arange(12, dtype="float32")).batch(4).prefetch(2)
    return [tf.reduce_sum(batch * 2.0) for batch in dataset]


@case
def python_function():
    @tf.function
    def f(x):
        return tf.numpy_function(lambda v: v * 3, [x], tf.float32) + 1.0

    return [f(data(4))]


@case
def errors_are_raised_here():
    kinds = []
    for wrong in (lambda: tf.matmul(data(2, 3), data(2, 3)), lambda: tf.reshape(data(4), [3])):
        try:
            wrong()
        except tf.errors.OpError as error:
            kinds.append(type(error).__name__)
    return [*kinds, tf.reduce_sum(tf.ones([3]))]


@case
def checkpoint():
    import tempfile

    v, w = tf.Variable(data(3)), tf.Variable(tf.zeros([2], tf.int64))
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(v=v, w=w).save(folder + "/ckpt")
        v.assign(tf.zeros([3]))
        tf.train.Checkpoint(v=v, w=w).restore(path).assert_consumed()
    return [v, w]


@case
def saved_model():
    import tempfile

    class Scale(tf.Module):
        def __init__(self):
            self.factor = tf.Variable(data(4, 2))
            self.calls = tf.Variable(0, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def __call__(self, x):
            self.calls.assign_add(1)
            return tf.nn.relu(x @ self.factor) * 2.0

    module = Scale()
    x = data(3, 4, seed=1)
    before = module(x)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        again = tf.saved_model.load(folder)
        return [before, again(x), again.factor, again.calls, again.signatures["serving_default"](x)["output_0"]]


@case
def session_of_version_1():
    graph = tf.Graph()
    with graph.as_default():
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 4])
        w = v1.get_variable("w", initializer=data_of(4, 2), use_resource=True)
        loss = tf.reduce_mean(tf.square(x @ w - 1.0))
        train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            losses = [session.run([loss, train], {x: data_of(5, 4, seed=2)})[0].item() for _ in range(4)]
            return [losses, session.run(w).tolist()]


@case
def asynchronous_eager():
    with tf.experimental.async_scope():
        x = data(4, 4)
        for _ in range(5):
            x = tf.tanh(x @ x)
        total = tf.reduce_sum(x)
    return [x, total]


@case
def mixed_types():
    x = data(4)
    return [
        tf.cast(tf.cast(x, tf.float16) * 2, tf.float32),
        tf.cast(tf.cast(x, tf.bfloat16) + 1, tf.float32),
        tf.cast(x * 10, tf.int8),
        tf.complex(x, x) * 2j,
        tf.cast(x, tf.float64) / 3,
        tf.bitwise.bitwise_and(tf.range(6), 3),
        tf.logical_not(x > 0),
    ]


def plain(value: Any) -> Any:
    if isinstance(value, (tf.Tensor, tf.Variable)):
        array = value.numpy()
        return [str(array.dtype), list(array.shape), repr(array.reshape(-1).tolist())]
    return value


def main() -> None:
    for name in sys.argv[1:] or CASES:
        try:
            result = [plain(value) for value in CASES[name]()]
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[:300]}"
        print(json.dumps([name, result], default=repr), flush=True)


if __name__ == "__main__":
    main()
