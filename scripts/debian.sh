#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, when they are missing.
#
#   scripts/debian.sh build|python|test|lint|clang …     groups of packages, see below
#
# Root: installs. Anybody else: prints the one line to run, exits 2. Nothing missing: says nothing, takes milliseconds.
set -euo pipefail

build="g++ cmake ninja-build ccache libasio-dev libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libxxhash-dev
  libzstd-dev libseccomp-dev libgloo-dev libgtest-dev libgmock-dev"
python=""
test="openssh-client openssh-server iproute2 valgrind procps googletest"
lint="clang-format-14"
clang="clang-14 libclang-rt-14-dev"
bench="libbenchmark-dev"

# A python3 of another origin brings its own venv and headers; Debian's has them in packages of their own.
if ! command -v python3 >/dev/null; then
  python="python3 python3-venv python3-dev"
else
  python3 -c 'import ensurepip, venv' 2>/dev/null || python="python3-venv"
  python3 -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    python="$python python3-dev"
fi

wanted=""
for group in "$@"; do
  case "$group" in
    build | python | test | lint | clang | bench) wanted="$wanted ${!group}" ;;
    *) echo "scripts/debian.sh: no group of packages is called '$group'" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "not a Debian system: please see to it that you have what these packages hold:$(echo $wanted)" >&2
  exit 0
fi

missing=""
have=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' 2>/dev/null) "
for package in $wanted; do
  [[ "$have" == *"ii $package "* ]] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
  echo "Debian packages are missing. Please run this once, then try again:" >&2
  echo "  sudo $command" >&2
  exit 2
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
$command -qq >/dev/null
