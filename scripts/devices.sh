#!/usr/bin/env bash
# Checks and figures of the devices beside the processor.
#
#   scripts/devices.sh kernels   every kernel of TPC-H, SSB and ClickBench compiles with NVRTC for sm_80, sm_90, sm_100; no GPU needed
#   scripts/devices.sh opencl    conformance, random graphs and TPC-H, SSB, ClickBench on PoCL (SF=1)
#   scripts/devices.sh faults    every fault in every phase on simulated devices, 1,000 seeds
#   scripts/devices.sh schedules PART/PARTS   each family of kernels under a hundred drawn schedules, a part of them at a time (1/1)
#   scripts/devices.sh matrix [PART/PARTS] [sim|opencl]   the whole conformance matrix, part by part, or one of its parts
#   scripts/devices.sh gpu       correctness, then figures, on the GPU that is there; without one it says so
#
# Device crates are built by themselves, in a folder beside the target folder's profiles: they need no query engine.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
tools=${TRIREME_TOOLS:-$root/.tools}
python=$tools/python/bin/python
export TRIREME_BIN=${TRIREME_BIN:-$target/release/trireme} TRISQL_BIN=${TRISQL_BIN:-$target/release/trisql}

devices() { CARGO_TARGET_DIR=$target/devices cargo "$@"; }

binaries() {
  tests/e2e/setup.sh python
  [ -x "$TRIREME_BIN" ] && [ -x "$TRISQL_BIN" ] || scripts/build.sh release
}

# Parts of the matrix one by one, a line for each and for all of them; what failed is told at the end.
matrix() {
  local parts=20 numbers device number log logs failed=()
  case $1 in
  '') numbers=$(seq 1 $parts) ;;
  */*) numbers=${1%/*} parts=${1#*/} ;;
  esac
  export TRIREME_REQUIRE_OPENCL=1
  for device in $2; do
    devices test --locked --release -p "trireme-device-$device" --test conformance --no-run
    logs=()
    for number in $numbers; do
      log=$target/devices/matrix-$device-$number-$parts.log
      logs+=("$log")
      TRIREME_CONFORMANCE_SHARD=$number/$parts devices test --locked --release -p "trireme-device-$device" --test conformance -- \
        --nocapture systematic_graphs >"$log" 2>&1 || failed+=("$log")
      echo "$device: $(grep -E '^(part|left out:) ' "$log" || echo "part $number/$parts failed: $log")"
    done
    python3 benchmarks/matrix_total.py --device "$device" "${logs[@]}" || true
  done
  [ ${#failed[@]} = 0 ] || { tail -n 60 "${failed[@]}" && false; }
}

case ${1:-} in
kernels)
  binaries
  devices build --locked --release -p trireme-device-codegen --example check-kernels
  exec "$python" benchmarks/check_kernels.py --checker "$target/devices/release/examples/check-kernels" --area kernels --scale 0.1 --rows 1000000
  ;;
opencl)
  scripts/setup.sh test
  # Cases are drawn from the matrix until the time is up: each has bounds of its own, and so kernels. "matrix" runs all of them.
  export TRIREME_REQUIRE_OPENCL=1 TRIREME_CONFORMANCE_SECONDS=${TRIREME_CONFORMANCE_SECONDS:-600}
  devices test --locked --release -p trireme-device-opencl
  binaries
  exec "$python" benchmarks/bench_devices.py --device opencl0 --workloads tpch,ssb,clickbench --scale "${SF:-1}" \
    --serve devices.opencl=all --area devices-opencl
  ;;
faults)
  export TRIREME_FAULT_SEEDS=${TRIREME_FAULT_SEEDS:-1000}
  devices test --locked --release -p trireme-device-sim --test faults
  ;;
schedules)
  export TRIREME_SCHEDULES=${TRIREME_SCHEDULES:-100} TRIREME_FAMILIES=${2:-1/1} TRIREME_JOIN_SEEDS=1300 TRIREME_SIM_CASES=100
  devices test --locked --release -p trireme-device-codegen --lib -- --nocapture joins_are_those_of_all_pairs
  devices test --locked --release -p trireme-device-sim --test aggregates -- --nocapture
  devices test --locked --release -p trireme-device-sim --test sorts -- --nocapture
  devices test --locked --release -p trireme-device-sim --test conformance -- --nocapture families
  ;;
matrix)
  matrix "${2:-}" "${3:-sim opencl}"
  ;;
gpu)
  exec benchmarks/gpu.sh
  ;;
*)
  sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
  ;;
esac
