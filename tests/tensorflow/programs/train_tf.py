"""What a user has: knows nothing of Waldo. Prints its losses, and where the weights are."""

import os
import sys

import keras
import numpy as np
import tensorflow as tf

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4
if not tf.config.list_physical_devices("GPU"):
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # it fuses for the CPU alone
keras.utils.set_random_seed(3)
x = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
y = x.sum(axis=1, keepdims=True)

model = keras.Sequential([keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
print(model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0).history["loss"], flush=True)

weights = tf.Variable(tf.zeros([8, 1]))


@tf.function
def step(features, targets):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(features @ weights - targets))
    weights.assign_sub(0.1 * tape.gradient(loss, weights))
    return loss


for number in range(steps):
    print(float(step(x, y)), flush=True)
    if os.environ.get("STEP_FILE"):
        with open(os.environ["STEP_FILE"], "a") as file:
            file.write(f"{number}\n")
print(weights.numpy().ravel().tolist())
if os.environ.get("SAY_DEVICE"):
    print(weights.device, model.weights[0].value.device, file=sys.stderr)
