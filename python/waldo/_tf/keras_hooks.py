"""Keras 3 on a far device, with the user's code untouched.

Keras turns every log value into a Python float after every step, in the main thread, whoever wants it: each is a wait
for the far device. Here that is done for a step only when a callback gets to see it, for the progress bar when it is
about to draw; and the values of one step are read together. What is printed and kept stays the same.

Written for Keras 3.10 to 3.15; where its inside looks otherwise nothing is changed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_BATCH_ENDS = {"_on_train_batch_end": "on_train_batch_end", "_on_test_batch_end": "on_test_batch_end"}


def after_rnn(module: Any) -> None:
    """Keras picks cuDNN's own operators for LSTM and GRU where it sees a GPU; the plain ones run on every worker."""
    module.cudnn_ok = lambda *args, **kwargs: False


def after_callback_list(module: Any) -> None:
    lists, utils = module.CallbackList, module.python_utils
    if not all(hasattr(lists, name) for name in _BATCH_ENDS) or not hasattr(utils, "pythonify_logs"):
        return
    for inner, name in _BATCH_ENDS.items():
        setattr(lists, inner, _lazily(module, name, getattr(lists, inner)))
    plain = utils.pythonify_logs
    utils.pythonify_logs = lambda logs: plain(_read_together(logs))


def _lazily(module: Any, name: str, plain: Any) -> Any:
    """CallbackList._on_…_batch_end that leaves the logs alone when nobody looks at them."""

    def on_batch_end(self: Any, batch: Any, logs: Any = None) -> None:
        bar = None
        for callback in self.callbacks:
            if type(callback) is module.ProgbarLogger:
                bar = callback
            elif not _is_deaf(module, callback, name):
                return plain(self, batch, logs)
        if bar is None:
            return None
        shown = bar.verbose == 1 and (name == "on_train_batch_end" or not bar._called_in_fit)
        if shown and bar.progbar is not None and time.time() - bar.progbar._last_update >= bar.progbar.interval:
            return plain(self, batch, logs)
        return getattr(bar, name)(batch, logs={})

    return on_batch_end


def _is_deaf(module: Any, callback: Any, name: str) -> bool:
    is_default = module.utils.is_default
    return is_default(getattr(callback, name)) and (name != "on_train_batch_end" or is_default(callback.on_batch_end))


def _read_together(logs: Any) -> Any:
    """The same logs, with scalars of a far device read in one wait instead of one each."""
    tf = sys.modules.get("tensorflow")
    if tf is None:  # Keras runs on something else
        return logs
    far = {
        key: value
        for key, value in (logs or {}).items()
        if isinstance(value, tf.Tensor)
        and hasattr(value, "numpy")
        and "GPU:" in value.device
        and value.shape.rank == 0
        and value.dtype == tf.float32
    }
    if len(far) < 2:
        return logs
    return {**logs, **dict(zip(far, tf.stack(list(far.values())).numpy()))}
