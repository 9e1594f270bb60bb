#!/usr/bin/env bash
# Everything that needs a GPU, in a few minutes: correctness first, then figures as JSON. Without a GPU it says so and ends well.
#
#   benchmarks/gpu.sh          runs; results go to $OUT, or benchmarks/results
#   benchmarks/gpu.sh pack     on a machine with Rust: puts the binaries, compressed, into .gpu/, which is to be carried along, 64 MiB at
#                              most; PACK_BIN names a folder of binaries that were built already, PACK_LEVEL xz's effort
#
# The machine needs a driver, NVRTC and Python's own library; nothing is fetched or compiled there. With .gpu/ the binaries come from it.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
target=${CARGO_TARGET_DIR:-$root/target}

if [ "${1:-}" = pack ]; then
  from=${PACK_BIN:-$target/release}
  [ -n "${PACK_BIN:-}" ] || scripts/build.sh release || exit 1
  mkdir -p .gpu
  for name in trireme trisql devices; do
    # Without it there is no calibration, and all else runs.
    if [ "$name" = devices ] && ! [ -e "$from/$name" ]; then
      echo "no $from/$name: packed without calibration"
      continue
    fi
    xz "-${PACK_LEVEL:-9}" -T0 -c "$from/$name" >".gpu/$name.xz" || exit 1
  done
  du -sh .gpu
  bytes=$(cat .gpu/*.xz | wc -c)
  if [ "$bytes" -gt $((64 << 20)) ]; then
    echo "too large to be carried: $bytes bytes, at most $((64 << 20))"
    exit 1
  fi
  exit 0
fi

if ! ldconfig -p | grep -q 'libcuda\.so\.1' && ! nvidia-smi >/dev/null 2>&1; then
  echo 'no GPU here: libcuda.so.1 was not found; nothing was run'
  exit 0
fi

bin=$target/release
if [ -d .gpu ]; then
  bin=$(mktemp -d)
  for file in .gpu/*.xz; do
    name=$(basename "$file" .xz)
    xz -dc "$file" >"$bin/$name" && chmod +x "$bin/$name"
  done
fi
export TRIREME_BIN=$bin/trireme TRISQL_BIN=$bin/trisql TRIREME_BENCH_DATA=${TRIREME_BENCH_DATA:-$(mktemp -d)}
out=${OUT:-benchmarks/results}
python=python3
data=$TRIREME_BENCH_DATA

# step NAME COMMAND...: its output is kept; a failure doesn't stop what follows.
step() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  timeout "${LIMIT:-150}" "$@" 2>&1 | tee "$out/gpu-$name.log"
  echo "== $name: exit code ${PIPESTATUS[0]}, $((SECONDS - begin)) s"
}

tpch() { # SCALE
  [ -e "$data/tpch-sf$1/lineitem.parquet" ] || "$TRIREME_BIN" generate tpch --scale "$1" --out "$data/tpch-sf$1" >/dev/null
}

nvidia-smi -L
tpch 0.01
tpch 1
step correctness "$python" benchmarks/bench_devices.py --device cuda0 --scale 1 --data "$data/tpch-sf1" --verify --area gpu-correctness
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    printf '#!/bin/sh\nexec compute-sanitizer --tool %s --error-exitcode 9 %s "$@"\n' "$tool" "$bin/trireme" >"$bin/sanitized"
    chmod +x "$bin/sanitized"
    TRIREME_BIN=$bin/sanitized step "$tool" "$python" benchmarks/bench_devices.py --device cuda0 --scale 0.01 --data "$data/tpch-sf0.01"
  done
fi
[ -e "$bin/devices" ] && step calibration "$bin/devices" --only cuda --out "$out/gpu-calibration.json"
step hot-sf1 "$python" benchmarks/bench_devices.py --device cuda0 --scale 1 --data "$data/tpch-sf1" --repetitions 5 --area gpu-tpch-sf1
tpch 10
step hot-sf10 "$python" benchmarks/bench_devices.py --device cuda0 --scale 10 --data "$data/tpch-sf10" --repetitions 5 --duckdb --area gpu-tpch-sf10
step kmeans "$python" benchmarks/kmeans.py --device cuda0 --area gpu-kmeans
[ "$out" = benchmarks/results ] || cp benchmarks/results/gpu-* "$out/" 2>/dev/null
exit 0
