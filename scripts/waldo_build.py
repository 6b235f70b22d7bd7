"""scikit-build-core, but PyTorch is a build requirement only where none is installed. pip calls these functions.

pip builds in an environment of its own. Were torch listed in pyproject.toml, pip would fetch it once more for that, and in
its default build, which has gigabytes of CUDA, whichever build is installed. The one that is installed is also the one
that the package has to fit.
"""

import os
import sysconfig
from pathlib import Path

from scikit_build_core.build import *  # noqa: F403  (every hook of PEP 517 and 660)
from scikit_build_core.build import get_requires_for_build_editable as _requires_editable
from scikit_build_core.build import get_requires_for_build_wheel as _requires_wheel

TORCH = "torch==2.13.0"


def _installed_torch():
    """The folder of the torch in the environment that the package goes to, which an isolated build does not import."""
    folder = Path(sysconfig.get_path("platlib")) / "torch"
    return folder if (folder / "share/cmake/Torch/TorchConfig.cmake").exists() else None


def _with_torch(requires):
    return requires if _installed_torch() else [*requires, TORCH]


def get_requires_for_build_wheel(config_settings=None):
    return _with_torch(_requires_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    return _with_torch(_requires_editable(config_settings))


if _torch := _installed_torch():
    os.environ.setdefault("WALDO_TORCH_DIR", str(_torch))  # read by CMakeLists.txt
