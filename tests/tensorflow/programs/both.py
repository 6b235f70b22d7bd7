"""PyTorch and TensorFlow in one process, each with a far device of its own."""

import torch  # isort: skip
import tensorflow as tf

a = torch.arange(4.0, device="cuda")
b = tf.range(4.0)
print((a @ a).item(), float(tf.reduce_sum(b * b)))
print(a.device, b.device)
c = a * 2 + torch.tensor((b * 3).numpy(), device="cuda")
print(c.tolist())
