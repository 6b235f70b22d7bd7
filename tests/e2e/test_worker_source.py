"""What the worker's source must not say."""

import re

from support import ROOT

# Each makes the thread that says it stand still until the device has come to the end of its work.
WAITS_FOR_THE_DEVICE = re.compile(
    r"cuda(Stream|Device|Event)Synchronize|cudaMemcpy\(|synchronize(Device|Stream|Event)|->synchronize\(\)"
    r"|\.item(<\w+>)?\(|_local_scalar_dense|\.cpu\(\)|\.to\((at|c10)::kCPU|\.copy_\((?!.*non_blocking=\*/true)"
)
# file: how often, and why it may.
ALLOWED = {
    "bind.cc": (1, "an operator that takes a CPU tensor reads it itself, as on a local GPU"),
    "collective_recording.cc": (2, "collectives run on threads of their own"),
    "device.cc": (1, "memory that grows: from device to device, in its order"),
    "executor.cc": (1, "a backend whose answers do not come later has nothing to wait for"),
    "outputs.cc": (1, "a result in other strides: from device to device, in its order"),
}


def hot_path():
    yield ROOT / "src/server/executor.cc"
    for path in sorted((ROOT / "src/server/backends/torch").glob("*.cc")):
        if not path.stem.endswith("_test") and not path.stem.startswith(("test_support", "substitutes")):  # a CPU's
            yield path


def said(path):
    for line in path.read_text().splitlines():
        code = line.split("//")[0]
        if WAITS_FOR_THE_DEVICE.search(code):
            yield code.strip()


def test_executors_never_wait_for_the_device():
    """Goal: design.md, "the executor never synchronises". Method: the words that do it, file by file; the list only shrinks."""
    found = {path.name: list(said(path)) for path in hot_path()}
    for name, lines in found.items():
        count, why = ALLOWED.get(name, (0, "nothing here may"))
        assert len(lines) == count, f"{name} ({why}): {lines}"


def test_the_words_are_found():
    """Goal: the expression above sees what it is for."""
    for line in (
        "at::cuda::getCurrentCUDAStream(); cudaStreamSynchronize(stream);",
        "auto value = tensor.item<float>();",
        "const double value = tensor.item().toDouble();",
        "guard->synchronizeDevice(0);",
        "host = tensor.cpu();",
        "pinned.copy_(tensor);",
        "event->synchronize();",
    ):
        assert WAITS_FOR_THE_DEVICE.search(line), line
    assert not WAITS_FOR_THE_DEVICE.search("pinned.copy_(tensor, /*non_blocking=*/true);")
