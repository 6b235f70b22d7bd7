"""Waits for `import torch`, then makes `cuda` ours, in this order:

1. `torch` is looked for: libwaldo_torch.so is loaded and registers hooks, kernels, guard and allocator. PyTorch makes
   its CUDA hooks once, at their first use, which is during `import torch`; later would be too late.
2. `torch.cuda` is looked for (torch/__init__.py imports it): torch._C gets the names that a CPU build lacks.
3. torch.distributed's first submodule is looked for: torch._C._distributed_c10d gets the backend "nccl".
4. torch is imported: the few methods of CPU builds that would touch a device pointer are replaced.

And for `import tensorflow`, which loads libwaldo_tensorflow.so by itself when it is told where that lies.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import ModuleSpec
from typing import Any

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
GPUS_MAX = 64  # queue_count_max of src/wire/limits.h
_TORCH_VERSIONS = ("2.11", "2.12", "2.13")


class Problem(Exception):
    """One line that says what is wrong and what to try."""


class Finder:
    """A meta path finder that finds nothing itself; it only sees names go by."""

    def __init__(self) -> None:
        self._ready = False  # libwaldo_torch.so is registered
        self._distributed = False  # torch.distributed has our process group

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "torch":
            return self._torch(path, target)
        if name == "tensorflow" or name in _AFTER:
            return self._framework(name, path, target)
        if name == "torch.cuda" and self._ready and "torch" in sys.modules:
            self._guarded(_fill_names)
        if name.startswith("torch.distributed.") and self._ready and not self._distributed:
            self._distributed = self._guarded(_fill_distributed)
        return None

    def _torch(self, path: Any, target: Any) -> ModuleSpec | None:
        spec = _spec_by_others(self, "torch", path, target)
        if spec is None or spec.origin is None or spec.loader is None:
            return spec
        self._ready = self._guarded(lambda: _load(os.path.dirname(spec.origin)))
        if not self._ready:
            sys.meta_path.remove(self)  # torch is then exactly what it is without us
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            self._guarded(_after_torch)

        loader.exec_module = exec_module
        return spec

    def _framework(self, name: str, path: Any, target: Any) -> ModuleSpec | None:
        spec = _spec_by_others(self, name, path, target)
        if spec is None or spec.loader is None or spec.origin is None:
            return spec
        if name == "tensorflow" and not self._guarded(_before_tensorflow):
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            if _tensorflow_is_ours:
                self._guarded(lambda: _AFTER[name](module))

        loader.exec_module = exec_module
        return spec

    @staticmethod
    def _guarded(step: Any) -> bool:
        try:
            step()
        except Exception as error:  # a broken hook must not break `import torch`
            text = str(error) if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
            if os.environ.get("WALDO_STRICT") == "1":
                raise ImportError(f"waldo: {text}") from error
            print(f"waldo: no cuda devices here: {text}", file=sys.stderr)
            return False
        return True


def _spec_by_others(finder: Finder, name: str, path: Any, target: Any) -> ModuleSpec | None:
    for other in sys.meta_path:
        if other is not finder and (find := getattr(other, "find_spec", None)) is not None:
            spec = find(name, path, target)
            if spec is not None:
                return spec
    return None


def _load(torch_dir: str) -> None:
    gpus = os.environ.get("WALDO_GPUS") or "1"
    if not (gpus.isascii() and gpus.isdecimal() and int(gpus) <= GPUS_MAX):
        raise Problem(f'WALDO_GPUS is "{gpus}"; try a number from 1 to {GPUS_MAX}')
    if memory := os.environ.get("WALDO_MEMORY"):
        os.environ["WALDO_MEMORY"] = str(_bytes(memory))
    version, cuda = _read_version(torch_dir)
    if not version.startswith(tuple(v + "." for v in _TORCH_VERSIONS)):
        raise Problem(f"PyTorch {version} is not one of {', '.join(_TORCH_VERSIONS)}; install one of these")
    # PyTorch's own operators written for a local GPU's compiler would shadow ours.
    os.environ.setdefault("TORCH_DISABLE_NATIVE_JIT", "1")
    import ctypes

    try:
        if cuda is not None:
            ctypes.CDLL(os.path.join(_PACKAGE, "libwaldo_no_gpu.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(os.path.join(torch_dir, "lib", "libtorch_cpu.so"))  # wherever torch is, ours then finds it
        library = ctypes.CDLL(os.path.join(_PACKAGE, "libwaldo_torch.so"))
    except OSError as error:
        raise Problem(
            f"libwaldo_torch.so does not fit PyTorch {version} ({error}); build it again: "
            "pip install --force-reinstall --no-deps waldo-gpu"
        ) from error
    library.waldo_torch_built_for.restype = ctypes.c_char_p
    built_for = library.waldo_torch_built_for().decode()
    if version.split(".")[:2] != built_for.split(".")[:2]:
        raise Problem(
            f"Waldo was built for PyTorch {built_for}, but this is {version}; build it again: "
            "pip install --force-reinstall --no-deps waldo-gpu"
        )
    if cuda is not None:  # its own kernels for a GPU are registered when this is loaded: before ours, which then answer
        library.waldo_torch_before_cuda()
        _load_cuda(torch_dir, version)
    library.waldo_torch_register.restype = ctypes.c_char_p
    problem = library.waldo_torch_register(0)
    if problem is not None:
        raise Problem(problem.decode())


def _bytes(text: str) -> int:
    """WALDO_MEMORY: a number of bytes, or as 4GiB."""
    parts = re.fullmatch(r"([1-9][0-9]{0,15})(?:([KMGT])(?:i?B)?|B)?", text, re.ASCII | re.IGNORECASE)
    if parts is None:
        raise Problem(f'WALDO_MEMORY is "{text}"; try a size, such as 4GiB')
    return int(parts.group(1)) << (10 * " KMGT".index((parts.group(2) or " ").upper()))


def _load_cuda(torch_dir: str, version: str) -> None:
    """libtorch_cuda, as `import torch` would load it. Nothing of it runs: no GPU and no driver is looked for."""
    import ctypes

    try:
        ctypes.CDLL(os.path.join(torch_dir, "lib", "libtorch_cuda.so"))
    except OSError:
        try:  # torch/__init__.py knows more places for CUDA's libraries; this names them all as needed
            ctypes.CDLL(os.path.join(torch_dir, "lib", "libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
            ctypes.CDLL(os.path.join(torch_dir, "lib", "libtorch_cuda.so"))
        except OSError as error:
            raise Problem(
                f"PyTorch {version} is a CUDA build whose own libraries do not load ({error}); "
                f"try: pip install --force-reinstall torch=={version.split('+')[0]}"
            ) from error


def _read_version(torch_dir: str) -> tuple[str, str | None]:
    """PyTorch's version and its CUDA version, without importing it."""
    try:
        with open(os.path.join(torch_dir, "version.py"), encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise Problem(f"cannot read {torch_dir}/version.py: {error.strerror}") from error
    version = re.search(r"^__version__ = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:\s*:[^=]*)? = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    if version is None:
        raise Problem(f"{torch_dir}/version.py names no version")
    return version.group(1), cuda.group(1) if cuda else None


def _fill_names() -> None:
    from waldo import _start
    from waldo._torch import names, native

    _start.attach(native.load(_PACKAGE))
    names.fill()


def _fill_distributed() -> None:
    from waldo._torch import distributed

    distributed.fill()


_TENSORFLOW_LIBRARY = os.path.join(_PACKAGE, "libwaldo_tensorflow.so")
_TENSORFLOW_PLUGINS = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"
_tensorflow_is_ours = False


def _before_tensorflow() -> None:
    global _tensorflow_is_ours
    if not os.path.exists(_TENSORFLOW_LIBRARY):
        if "torch" in sys.modules:  # TensorBoard imports it, if it is there; the program means PyTorch
            return
        raise Problem("this Waldo was built without TensorFlow; build it with -DWALDO_TENSORFLOW=ON")
    if os.environ.get(_TENSORFLOW_PLUGINS):
        raise Problem(f"{_TENSORFLOW_PLUGINS} names another device already; unset it")
    os.environ[_TENSORFLOW_PLUGINS] = _TENSORFLOW_LIBRARY
    _tensorflow_is_ours = True


def _after_tensorflow(_module: Any) -> None:
    import ctypes

    from waldo import _start

    os.environ.pop(_TENSORFLOW_PLUGINS, None)  # for this import alone, not for the program's children
    library = ctypes.CDLL(_TENSORFLOW_LIBRARY)
    _start.at_end(library.waldo_tensorflow_shutdown)
    _start.lost_by(lambda kind: kind.__name__ == "UnavailableError" and library.waldo_tensorflow_lost() == 1)


def _after_keras_rnn(module: Any) -> None:
    from waldo._tf import keras_hooks

    keras_hooks.after_rnn(module)


def _after_callback_list(module: Any) -> None:
    from waldo._tf import keras_hooks

    keras_hooks.after_callback_list(module)


_AFTER = {
    "tensorflow": _after_tensorflow,
    "keras.src.backend.tensorflow.rnn": _after_keras_rnn,
    "keras.src.callbacks.callback_list": _after_callback_list,
}


def _after_torch() -> None:
    from waldo._torch import compiling, cuda_build, legacy, names, printing, profiling, settings, storage, threads

    storage.patch()
    printing.patch()
    legacy.patch()
    threads.patch()
    settings.patch()
    compiling.patch()
    profiling.patch()
    if names.in_cuda_build:
        cuda_build.after_torch(_PACKAGE)
