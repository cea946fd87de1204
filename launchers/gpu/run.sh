#!/usr/bin/env bash
# Tests and measures the program on a GPU machine without a network. From the repository's folder, with what
# gather_wheels.sh gathered:
#   bash launchers/gpu/run.sh WHEELS OUT
# OUT gets compile.log, tests.log, benchmarks.log, and their table.md and record (JSON), each written as it goes. The exit
# code is 0 where both ended well. PYTHON is the machine's (python3); TEST_SECONDS and BENCHMARK_SECONDS limit them;
# REHEARSE=1 tries both on a CPU, with small sizes.
set -uo pipefail
[ $# -eq 2 ] || { echo "usage: bash launchers/gpu/run.sh WHEELS OUT" >&2; exit 2; }
wheels="$(realpath "$1")"
mkdir -p "$2" && out="$(realpath "$2")" || exit 2
cd "$(dirname "$0")/../.." || exit 2
PYTHON="${PYTHON:-python3}"

# Beside the machine's own packages, which stay as they are. A second run finds them, and what DeepSpeed compiled of them.
site="$PWD/runs/packages"
if [ "$(cat "$site/wheels.txt" 2>/dev/null)" != "$(ls "$wheels")" ]; then
    rm -rf "$site" && mkdir -p "$site"
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl || exit 2
    ls "$wheels" > "$site/wheels.txt"
fi
export PYTHONPATH="$site" PATH="$site/bin:$PATH" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # what else the machine has may not fit this pytest

# zero3_offload needs DeepSpeed's AdamW for the processor. Compiling it can take minutes, longer than a test of a launch:
# done beside what comes first. A launch that is ended while it compiles would also leave a lock that stops all later ones.
"$PYTHON" -c "from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load()" > "$out/compile.log" 2>&1 &

# Runs a command for at most so many seconds, then ends it by a signal; its output goes to the screen and to a file.
run() { timeout --signal "$1" --kill-after 20 "$2" "${@:4}" 2>&1 | tee "$3"; }

# INT: pytest sums up what it has. -vv: a line for each test, as it ends.
run INT "${TEST_SECONDS:-240}" "$out/tests.log" \
    "$PYTHON" -m pytest -vv -rs --durations 10 -p no:cacheprovider -m gpu tests/gpu
tests=$?
seconds="${BENCHMARK_SECONDS:-280}" # after which they end by themselves
run TERM $((seconds + 20)) "$out/benchmarks.log" \
    "$PYTHON" -m benchmarks gpu --output_dir "$out" --seconds "$seconds" ${REHEARSE:+--quick}
benchmarks=$?
echo "Exit codes: tests $tests, benchmarks $benchmarks (124: out of time)." | tee -a "$out/tests.log"
[ "$tests" -eq 0 ] && [ "$benchmarks" -eq 0 ]
