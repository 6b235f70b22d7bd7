"""tf.config and tf.test on two far devices, as on a machine with two GPUs. Raises where something is else."""

import sys

import tensorflow as tf


def check(name, got, wanted):
    if got != wanted:
        print(f"{name}: got {got}, wanted {wanted}", file=sys.stderr)
        sys.exit(1)


def raises(kind, function):
    try:
        function()
    except kind as error:
        return str(error)
    sys.exit(f"no {kind.__name__}")


split = "split" in sys.argv
gpus = tf.config.list_physical_devices("GPU")
check("names", [gpu.name for gpu in gpus], ["/physical_device:GPU:0", "/physical_device:GPU:1"])
check("types", {gpu.device_type for gpu in gpus}, {"GPU"})
check("all kinds", sorted({device.device_type for device in tf.config.list_physical_devices()}), ["CPU", "GPU"])
details = tf.config.experimental.get_device_details(gpus[0])
check("capability", len(details["compute_capability"]), 2)
check("a name", bool(details["device_name"]), True)

if split:
    limits = [tf.config.LogicalDeviceConfiguration(memory_limit=megabytes) for megabytes in (64, 128)]
    tf.config.set_logical_device_configuration(gpus[0], limits)
    check("logical", len(tf.config.list_logical_devices("GPU")), 3)
    with tf.device("/GPU:2"):
        check("third", float(tf.reduce_sum(tf.ones([4]))), 4.0)
    with tf.device("/GPU:0"):
        text = raises(tf.errors.ResourceExhaustedError, lambda: tf.zeros([64, 1024, 1024]) + 1.0)
        check("the error names the device", "GPU:0" in text, True)
    sys.exit(0)

tf.config.experimental.set_memory_growth(gpus[0], True)
tf.config.experimental.set_memory_growth(gpus[1], True)
check("growth", tf.config.experimental.get_memory_growth(gpus[0]), True)
check("logical", [d.name for d in tf.config.list_logical_devices("GPU")], ["/device:GPU:0", "/device:GPU:1"])
raises(RuntimeError, lambda: tf.config.experimental.set_memory_growth(gpus[0], False))
raises(RuntimeError, lambda: tf.config.set_visible_devices(gpus[:1], "GPU"))
check("visible", tf.config.get_visible_devices("GPU"), gpus)

check("gpu_device_name", tf.test.gpu_device_name(), "/device:GPU:0")
check("is_gpu_available", tf.test.is_gpu_available(), True)
check("is_gpu_available, 8.0", tf.test.is_gpu_available(min_cuda_compute_capability=(8, 0)), True)

x = tf.ones([256, 256])
check("placement", x.device.endswith("GPU:0"), True)
with tf.device("/GPU:1"):
    y = tf.ones([4]) * 2
check("second", y.device.endswith("GPU:1"), True)
check("across", (y + x[0, :4]).numpy().tolist(), [3.0] * 4)
with tf.device("/CPU:0"):
    z = tf.identity(y)
check("back", z.device.endswith("CPU:0"), True)


def on_a_device_that_is_not_there():
    with tf.device("/GPU:7"):
        return tf.ones([2]) + 1.0


check("soft placement", on_a_device_that_is_not_there().shape, (2,))
tf.config.set_soft_device_placement(False)
raises(tf.errors.InvalidArgumentError, on_a_device_that_is_not_there)
info = tf.config.experimental.get_memory_info("GPU:0")
check("memory", info["current"] >= 256 * 256 * 4 and info["peak"] >= info["current"], True)
tf.config.experimental.reset_memory_stats("GPU:0")
print("all as on a machine with two GPUs")
