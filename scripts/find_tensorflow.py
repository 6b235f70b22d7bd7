"""Prints `folder;minor version` of the installed TensorFlow, without importing it. For CMakeLists.txt."""

import contextlib
import importlib.metadata
import importlib.util
import sys

spec = importlib.util.find_spec("tensorflow")
for name in ("tensorflow", "tensorflow-cpu"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(name)
        print(f"{spec.submodule_search_locations[0]};{'.'.join(version.split('.')[:2])}")
        break
else:
    sys.exit(1)
