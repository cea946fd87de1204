#!/usr/bin/env bash
# Gathers the wheels of missing.txt for a GPU machine without a network (x86-64 Linux, Python 3.12), where run.sh
# installs them; needs a network and any Python with pip:
#   bash launchers/gpu/gather_wheels.sh WHEELS
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: bash launchers/gpu/gather_wheels.sh WHEELS" >&2; exit 2; }
list="$(dirname "$0")/missing.txt"
PYTHON="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
platforms=() # pip takes each by its exact name
for version in manylinux_2_28 manylinux_2_24 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${version}_x86_64")
done

mkdir -p "$1" && rm -f "$1"/*.whl # two versions of a package would stop the installation
grep -v '^deepspeed' "$list" > "$1/list.txt"
"$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    "${platforms[@]}" --dest "$1" -r "$1/list.txt"
# Nothing is compiled in advance, so that the wheel fits every machine: DeepSpeed compiles there what a launch needs.
grep '^deepspeed' "$list" > "$1/list.txt"
DS_BUILD_OPS=0 "$PYTHON" -m pip wheel --quiet --no-deps --no-binary deepspeed --wheel-dir "$1" -r "$1/list.txt"
rm "$1/list.txt"
du -ch "$1"/*.whl
