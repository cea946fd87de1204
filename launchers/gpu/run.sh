#!/usr/bin/env bash
# Tests and measures the program on a GPU machine without a network. From the repository's folder, with what
# gather_wheels.sh gathered:
#   bash launchers/gpu/run.sh WHEELS OUT
# OUT gets tests.log, benchmarks.log, and the benchmarks' table.md and record (JSON), each written as it goes. The exit
# code is 0 where both ended well. PYTHON is the machine's (python3); TEST_SECONDS and BENCHMARK_SECONDS limit them;
# REHEARSE=1 tries both with small sizes, on a CPU too.
set -uo pipefail
[ $# -eq 2 ] || { echo "usage: bash launchers/gpu/run.sh WHEELS OUT" >&2; exit 2; }
wheels="$(realpath "$1")"
mkdir -p "$2" && out="$(realpath "$2")" || exit 2
cd "$(dirname "$0")/../.." || exit 2
PYTHON="${PYTHON:-python3}"

# Beside the machine's own packages, which stay as they are.
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
"$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit 2
export PYTHONPATH="$site" PATH="$site/bin:$PATH" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # what else the machine has may not fit this pytest

# Runs a command for at most so many seconds; its output goes to the screen and to a file. INT lets pytest sum up.
run() { timeout --signal INT --kill-after 20 "$1" "${@:3}" 2>&1 | tee "$2"; }

run "${TEST_SECONDS:-240}" "$out/tests.log" "$PYTHON" -m pytest -v --durations 10 -p no:cacheprovider -m gpu tests/gpu
tests=$?
run "${BENCHMARK_SECONDS:-300}" "$out/benchmarks.log" \
    "$PYTHON" -m benchmarks gpu --output_dir "$out" ${REHEARSE:+--quick}
benchmarks=$?
echo "Exit codes: tests $tests, benchmarks $benchmarks (124: out of time)." | tee -a "$out/tests.log"
[ "$tests" -eq 0 ] && [ "$benchmarks" -eq 0 ]
