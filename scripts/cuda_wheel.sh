#!/usr/bin/env bash
# Waldo in the CUDA build of PyTorch that a plain `pip install torch` gives on Linux, on a machine without a GPU: installs it whole
# (5 GB) into build/cuda-wheel, builds Waldo for it as `pip install .` does, runs the smoke suite, and deletes it again
# unless KEEP=1. CUDA_TORCH names another version.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${CUDA_TORCH:-torch==2.11.0}
folder=build/cuda-wheel
jobs=${JOBS:-2}

free_gib=$(($(df --output=avail -k . | tail -1) / 1024 / 1024))
if [ "$free_gib" -lt 12 ] && [ ! -e "$folder/venv/.complete" ]; then
  echo "make cuda-wheel needs 12 GiB of disk; there are $free_gib" >&2
  exit 2
fi
[ "${KEEP:-}" = 1 ] || trap 'rm -rf "$folder"' EXIT
python=$PWD/$folder/venv/bin/python
if [ ! -e "$folder/venv/.complete" ]; then
  mkdir -p "$folder"
  "${PYTHON:-python3}" -m venv "$folder/venv"
  echo "installing $torch, whole, into $folder/venv"
  "$python" -m pip install --disable-pip-version-check -q --no-cache-dir "$torch"
  "$python" -m pip install --disable-pip-version-check -q $("$python" scripts/requirements.py build test) ninja
  touch "$folder/venv/.complete"
fi
"$python" - <<'CHECK'
import sys, torch
if torch.version.cuda is None:
    sys.exit(f"torch {torch.__version__} is no CUDA build: the registry gave another wheel")
if torch.cuda.is_available():
    sys.exit("there is a GPU here; this is about machines without one")
print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, no GPU")
CHECK

echo "building and installing waldo (build folder: $folder/build)"
CMAKE_BUILD_PARALLEL_LEVEL=$jobs "$python" -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps \
  --force-reinstall --config-settings=build-dir="$folder/build" . >"$folder/install.log" 2>&1 ||
  { tail -40 "$folder/install.log"; exit 1; }

export OMP_WAIT_POLICY=passive
# Its own tests; the operators, in one process; and what must run unmodified, as programs.
"$python" -m pytest -q -p no:cacheprovider tests/cuda_wheel
"$python" -m pytest -q -p no:cacheprovider tests/torch --deselect tests/torch/test_conformance.py ${PYTEST_ARGS:-}
"$python" -m pytest -q -p no:cacheprovider tests/e2e/test_unmodified.py ${PYTEST_ARGS:-}
