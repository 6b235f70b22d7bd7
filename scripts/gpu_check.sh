#!/usr/bin/env bash
# Builds and tests Waldo from the archive of `make gpu-bundle`, on a machine that reaches no registry: scripts/gpu_check.sh ARCHIVE FOLDER
#
# $PYTHON (python3) has PyTorch and scikit-build-core; nothing is installed into it: packages go to FOLDER/venv, which sees what it has.
# JOBS compile at once (all cores). Without a GPU the tests that need one are skipped, so that this can be kept working.
set -euo pipefail
archive=$(realpath "$1")
folder=$2
python=${PYTHON:-python3}
jobs=${JOBS:-$(nproc)}

"$python" -c 'import torch, scikit_build_core, pybind11' || { echo "$python needs torch, scikit-build-core and pybind11: make gpu-check PYTHON=…"; exit 2; }
mkdir -p "$folder"
folder=$(realpath "$folder")
tar -xzf "$archive" -C "$folder"
cd "$folder/waldo"
export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1 CMAKE_BUILD_PARALLEL_LEVEL="$jobs" OMP_WAIT_POLICY=passive

[ -x "$folder/venv/bin/python" ] || "$python" -m venv --without-pip "$folder/venv"
site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' >"$site/below.pth"
pip() { "$python" -m pip --python "$folder/venv/bin/python" --disable-pip-version-check -q "$@"; }
pip install --no-index --no-deps third_party/wheels/*.whl
# The worker looks for PyTorch beside the package, as pip installs them.
ln -sfn "$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')" "$site/torch"
"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__, "· CUDA", torch.version.cuda, "· GPUs", torch.cuda.device_count())'

echo "building"
defines=(--config-settings=cmake.define.WALDO_THIRD_PARTY="$PWD/third_party" --config-settings=cmake.define.WALDO_TESTS=ON)
WALDO_TORCH_DIR=$("$folder/venv/bin/python" -c 'import torch, os; print(os.path.dirname(torch.__file__))') \
  pip install --no-index --no-build-isolation --no-deps --force-reinstall --config-settings=build-dir="$folder/build" "${defines[@]}" . \
  >"$folder/build.log" 2>&1 || { tail -40 "$folder/build.log"; echo "all of it: $folder/build.log"; exit 1; }
cmake --build "$folder/build" -j "$jobs" --target backend_torch_test >>"$folder/build.log" 2>&1 || { tail -40 "$folder/build.log"; exit 1; }

echo "testing"
ctest --test-dir "$folder/build" -j 2 --output-on-failure --no-tests=error -R '^(Torch|Backend|Queue|Substitutes|Training|Hostile)' | tail -3
"$folder/venv/bin/python" -m pytest -q tests/gpu ${PYTEST_ARGS:-}
