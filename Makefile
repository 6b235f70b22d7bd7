# make help        what there is
#
# Stamps under build/stamps say what is done already, so that a second run of anything starts at once. The package is
# built by scikit-build-core in build/release, kept between runs; its C++ tests are built in the same folder.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

JOBS ?= 2
PYTHON ?= python3
# Further arguments for the one `pip install torch` (for instance an --index-url with CPU builds); empty by default.
TORCH_PIP_ARGS ?=
PIP ?= $(VENV)/bin/python -m pip install --disable-pip-version-check -q
FUZZ_SECONDS ?= 20
SOAK_ARGS ?=
SEEDS ?= 1000
FROM ?= 1
PYTEST_ARGS ?=
DEMO_ARGS ?=
CONFORMANCE_ARGS ?=

VENV := .venv
RELEASE := build/release
STAMPS := build/stamps
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

# --- what things are made of ------------------------------------------------------------------------------------------

# Files that the installed package depends on. The list itself is a prerequisite: it changes when a file goes away.
SOURCES := $(shell find src python -type f -not -name '*_test.cc' -not -name '*_fuzz.cc' -not -path '*/__pycache__/*' | LC_ALL=C sort) \
  CMakeLists.txt pyproject.toml

.PHONY: FORCE
$(STAMPS)/sources.list: FORCE
	@mkdir -p $(STAMPS)
	@printf '%s\n' $(SOURCES) | cmp -s - $@ || printf '%s\n' $(SOURCES) > $@

$(STAMPS)/debian-build: scripts/debian.sh
	@mkdir -p $(STAMPS)
	@scripts/debian.sh build python
	@touch $@

$(STAMPS)/debian-test: scripts/debian.sh
	@mkdir -p $(STAMPS)
	@scripts/debian.sh test
	@touch $@

$(VENV)/.python: | $(STAMPS)/debian-build
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"$(PYTHON) is Python {v[0]}.{v[1]}; this needs 3.11 to 3.13: make PYTHON=python3.11 …")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.python
	@echo "installing PyTorch into $(VENV)"
	@$(PIP) $(TORCH_PIP_ARGS) $$($(VENV)/bin/python scripts/requirements.py torch)
	@touch $@

$(VENV)/.packages: $(VENV)/.torch pyproject.toml scripts/requirements.py
	@echo "installing Python packages into $(VENV)"
	@$(PIP) $$($(VENV)/bin/python scripts/requirements.py build examples test lint)
	@touch $@

# $(call install_package,MORE PIP WORDS): built and installed as `pip install .` does, but in a build folder that stays.
define install_package
	@echo "building and installing waldo (build folder: $(RELEASE))"
	@set -o pipefail; CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) \
	  $(VENV)/bin/python -m pip install -v --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall \
	  --config-settings=build-dir=$(RELEASE) --config-settings=cmake.define.WALDO_TESTS=ON $(1) . 2>&1 \
	  | tee build/install.log | { grep --line-buffered -oE '\[[0-9]+/[0-9]+\] .*' || true; } \
	  || { grep -A 30 -m 1 -E 'FAILED:|CMake Error|ERROR' build/install.log; echo "all of it: build/install.log"; exit 1; }
endef

$(STAMPS)/installed: $(SOURCES) $(STAMPS)/sources.list $(VENV)/.packages
	$(call install_package)
	@touch $@

.PHONY: venv build
venv: $(VENV)/.packages  ## a .venv with everything that building, testing and the examples need
build: $(STAMPS)/installed  ## build the package and install it into .venv

# --- the two commands -------------------------------------------------------------------------------------------------

.PHONY: demo test
demo: build  ## install what is missing, build, and train examples/gan.py on cuda:0 (out/gan.png)
	$(VENV)/bin/waldo run examples/gan.py $(DEMO_ARGS)

test: export OMP_WAIT_POLICY := passive  # spinning threads starve each other on a busy machine
test: build $(STAMPS)/debian-test  ## build and run every test: C++ (ctest), then Python (pytest; tests/torch and tests/distributed have processes of their own)
	cmake --build $(RELEASE) -j $(JOBS)
	ctest --test-dir $(RELEASE) -j $(JOBS) --output-on-failure --no-tests=error
	$(VENV)/bin/python -m pytest tests/torch $(PYTEST_ARGS)
	$(VENV)/bin/python -m pytest tests/distributed $(PYTEST_ARGS)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

# TensorFlow is an extra of 1.3 GB: `make test` leaves it out, and says so.
$(VENV)/.tensorflow: $(VENV)/.packages pyproject.toml
	@echo "installing TensorFlow into $(VENV)"
	@$(PIP) $$($(VENV)/bin/python scripts/requirements.py tensorflow)
	@touch $@

$(STAMPS)/installed-tensorflow: $(STAMPS)/installed $(VENV)/.tensorflow
	$(call install_package,--config-settings=cmake.define.WALDO_TENSORFLOW=ON)
	@touch $@

.PHONY: tf-test
tf-test: $(STAMPS)/installed-tensorflow $(STAMPS)/debian-test  ## the same for TensorFlow: installs tensorflow-cpu, builds for it, runs its tests
	cmake --build $(RELEASE) -j $(JOBS) --target wire_test backend_tensorflow_test
	ctest --test-dir $(RELEASE) -j $(JOBS) -R 'TfQueue|Tensorflow' --output-on-failure --no-tests=error
	$(VENV)/bin/python -m pytest tests/tensorflow $(PYTEST_ARGS)

# The libraries of tests/libraries, beside the very PyTorch that is there.
$(VENV)/.libraries: $(VENV)/.packages pyproject.toml
	@echo "installing libraries into $(VENV)"
	@$(VENV)/bin/python -m pip freeze | grep '^torch==' > build/torch.txt
	@$(PIP) -c build/torch.txt $$($(VENV)/bin/python scripts/requirements.py libraries)
	@touch $@

.PHONY: test-libraries
test-libraries: export OMP_WAIT_POLICY := passive
test-libraries: build $(VENV)/.libraries  ## transformers, lightning, accelerate, ... unmodified: installs them, runs tests/libraries, writes docs/libraries.md
	@rm -f build/libraries.json
	WALDO_LIBRARIES=all WALDO_LIBRARIES_JSON=build/libraries.json $(VENV)/bin/python -m pytest tests/libraries $(PYTEST_ARGS); ended=$$?; \
	  $(VENV)/bin/python tests/libraries/libraries.py build/libraries.json > docs/libraries.md; grep '^|' docs/libraries.md; exit $$ended

.PHONY: conformance
conformance: build  ## PyTorch's own tests, all of them, through cuda (build/conformance; run again, it resumes)
	PYTHONPATH=tests/torch $(VENV)/bin/python -m conformance --suites op,module,optim --shards 2 --processes $(JOBS) $(CONFORMANCE_ARGS)

# --- for working on it ------------------------------------------------------------------------------------------------

# $(call run_preset,NAME): configure, build and test one of CMakePresets.json.
define run_preset
	cmake --preset $(1) > build/$(1).log || { cat build/$(1).log; exit 1; }
	cmake --build --preset $(1) -j $(JOBS)
	ctest --preset $(1) -j $(JOBS) --no-tests=error
endef

.PHONY: kills cuts soak
kills: build  ## kill -9 of each process at each moment of a run: the whole matrix, and what each took
	WALDO_KILLS=all $(VENV)/bin/python -m pytest -q -s tests/e2e/test_kills.py $(PYTEST_ARGS)

cuts: build $(STAMPS)/debian-test  ## 100 cuts and an outage of 60 s in a training over sshd; a training cut after each of its bytes
	WALDO_CUTS=100 WALDO_OUTAGE=60 $(VENV)/bin/python -m pytest -q -s tests/e2e/test_ssh.py -k cuts $(PYTEST_ARGS)
	WALDO_BYTES_STRIDE=1 $(VENV)/bin/python -m pytest -q -s tests/e2e/test_every_byte.py $(PYTEST_ARGS)

soak: build  ## an hour of 20 sessions with kills and cuts at random (SOAK_ARGS="--minutes 10 --sessions 6")
	PYTHONPATH=tests:tests/e2e $(VENV)/bin/python tests/e2e/soak.py $(SOAK_ARGS)

# --- other versions and builds of PyTorch, and GPUs -------------------------------------------------------------------

GPU_BUNDLE := build/waldo-gpu.tar.gz

.PHONY: torch-matrix cuda-wheel gpu-bundle gpu-check
torch-matrix: $(VENV)/.packages  ## compile against PyTorch 2.11, 2.12 and 2.13, unpacked into build/torch (MATRIX_ARGS="--versions 2.12.0")
	nice $(VENV)/bin/python scripts/torch_matrix.py --jobs $(JOBS) $(MATRIX_ARGS) -- $(TORCH_PIP_ARGS)

cuda-wheel: $(STAMPS)/debian-build  ## PyTorch's CUDA build, whole (5 GB, deleted again unless KEEP=1), on a machine without a GPU
	JOBS=$(JOBS) PYTHON=$(PYTHON) nice scripts/cuda_wheel.sh

gpu-bundle: $(STAMPS)/debian-build $(STAMPS)/debian-test  ## pack what a GPU machine without a registry needs into one small archive
	$(PYTHON) scripts/gpu_bundle.py $(GPU_BUNDLE)

gpu-check:  ## there: unpack, build, test (GPU_BUNDLE=, PYTHON= with PyTorch and scikit-build-core); without a GPU its CPU poses
	scripts/gpu_check.sh $(GPU_BUNDLE) build/gpu-check

.PHONY: check asan tsan clang sim fuzz
check: $(STAMPS)/debian-build  ## the torch-free C++ tests, in minutes from nothing; needs Debian packages only
	$(call run_preset,check)

asan: $(STAMPS)/debian-build  ## check, under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call run_preset,asan)

tsan: $(STAMPS)/debian-build  ## check, under ThreadSanitizer
	$(call run_preset,tsan)

clang: $(VENV)/.packages  ## everything compiles with clang 14 too (g++ 12 is what `make build` uses)
	scripts/debian.sh clang
	cmake --preset clang > build/clang.log || { cat build/clang.log; exit 1; }
	cmake --build --preset clang -j $(JOBS)

sim: $(STAMPS)/debian-build  ## sessions on a bad network, simulated: SEEDS (1000) of them, from FROM (1); a failure names its seed
	cmake --preset check > build/check.log || { cat build/check.log; exit 1; }
	cmake --build --preset check -j $(JOBS) --target sim
	build/check/tests/sim/sim --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)

fuzz: $(STAMPS)/debian-build  ## run every fuzz target for FUZZ_SECONDS (20)
	scripts/debian.sh clang
	cmake --preset fuzz > build/fuzz.log || { cat build/fuzz.log; exit 1; }
	cmake --build --preset fuzz -j $(JOBS)
	scripts/fuzz.sh build/fuzz $(FUZZ_SECONDS)

.PHONY: bench lint format
bench: build  ## print the table of figures (bench/README.md); build/figures.json holds them as data
	cmake --build $(RELEASE) -j $(JOBS) --target op_latency
	$(VENV)/bin/python bench/figures.py --json build/figures.json $(BENCH_ARGS)

lint: $(VENV)/.packages  ## ruff and clang-format, changing nothing
	scripts/debian.sh lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	git ls-files -co --exclude-standard '*.h' '*.cc' | xargs clang-format-14 --dry-run --Werror

format: $(VENV)/.packages  ## ruff and clang-format, in place
	scripts/debian.sh lint
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .
	git ls-files -co --exclude-standard '*.h' '*.cc' | xargs clang-format-14 -i

.PHONY: clean help
clean:  ## remove build folders and pictures; the .venv stays
	rm -rf build out

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
