#!/usr/bin/env bash
# Everything that needs a GPU, in a few minutes: correctness first, then figures as JSON. Without a GPU it says so and ends well.
#
#   benchmarks/gpu.sh [STEP…]    conformance, correctness, interpreted, calibration, sf1, sf10, kmeans, sanitizers, all of them if none
#                                is named; sf100 if named.
#                                Steps that don't fit BUDGET_S seconds (560) are left, and named at the end: call again with those
#   benchmarks/gpu.sh pack       on a machine with Rust: puts the binaries, compressed, into .gpu/, which is to be carried along;
#                                PACK_BIN names a folder of binaries that were built already, PACK_LEVEL xz's effort
#   benchmarks/gpu.sh wheels     puts DuckDB for PACK_PYTHON (3.12) into .whl/, for sf10's comparison. Where both folders are too much
#                                to carry at once: .gpu/ with the first call, .whl/ with the one that runs sf10, on the same machine,
#                                so soon after the first that it is still held
#   benchmarks/gpu.sh rehearse   the same steps on an OpenCL device and little data, to see that they work
#
# The machine needs a driver, NVRTC and Python's own library; nothing is fetched or compiled there. Binaries and data stay in SCRATCH
# (/tmp/trireme-gpu) for the next call. Results are in benchmarks/results, and as one archive in $OUT, if that is set.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
target=${CARGO_TARGET_DIR:-$root/target}
python=${PYTHON:-python3}
scratch=${SCRATCH:-/tmp/trireme-gpu}
logs=$root/benchmarks/results
all=(conformance correctness interpreted calibration sf1 sf10 kmeans sanitizers)
opencl=() device=cuda0 small=0.01 one=1 ten=10 sizes=() measured=(--only cuda)
# What is compared and measured are compiled kernels, not the program that runs while they compile.
serve=(--serve devices.kernels=compiled --serve "devices.kernel_dir=$scratch/kernels") kernels=(--tier compiled)

pack() {
  local from=${PACK_BIN:-$target/release} name bytes
  [ -n "${PACK_BIN:-}" ] || scripts/build.sh release || return 1
  mkdir -p .gpu
  # Random graphs against the naive interpreter: what differs there says which operator is wrong.
  cargo test --locked --release -p trireme-device-cuda --test conformance --no-run --message-format=json-render-diagnostics |
    "$python" -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])' >.gpu/conformance.path || return 1
  strip -o .gpu/conformance "$(cat .gpu/conformance.path)" && xz "-${PACK_LEVEL:-9}" -T0 -f .gpu/conformance || return 1
  rm .gpu/conformance.path
  for name in trireme trisql devices; do
    # Without it there is no calibration, and all else runs.
    if [ "$name" = devices ] && ! [ -e "$from/$name" ]; then
      echo "no $from/$name: packed without calibration"
      continue
    fi
    xz "-${PACK_LEVEL:-9}" -T0 -c "$from/$name" >".gpu/$name.xz" || return 1
  done
  bytes=$(cat .gpu/*.xz | wc -c)
  echo "$bytes bytes in .gpu/"
  if [ "$bytes" -gt $((48 << 20)) ]; then
    echo "too large to be carried beside the tree: at most $((48 << 20))"
    return 1
  fi
}

wheels() {
  local platforms=(manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_26_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64)
  "$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "${PACK_PYTHON:-3.12}" \
    "${platforms[@]/#/--platform=}" -d .whl duckdb && du -sh .whl
}

# Binaries: packed ones win; those that an earlier call left do as well.
unpacked() {
  local file name
  if ! [ -d .gpu ]; then
    [ -x "$scratch/bin/trireme" ] && bin=$scratch/bin || bin=$target/release
    return
  fi
  bin=$scratch/bin
  mkdir -p "$bin"
  for file in .gpu/*.xz; do
    name=$(basename "$file" .xz)
    [ "$bin/$name" -nt "$file" ] && continue
    if command -v xz >/dev/null; then
      xz -dc "$file" >"$bin/$name"
    else
      "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$file" "$bin/$name"
    fi
    chmod +x "$bin/$name"
  done
}

# Folders of NVRTC (a toolkit's, a Python package's) and of a driver that the system's linker doesn't know.
libraries() {
  local folder packages
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  for folder in /usr/local/cuda/lib64 "$packages"/nvidia/*/lib /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
    compgen -G "$folder/libnvrtc.so*" >/dev/null || compgen -G "$folder/libcuda.so*" >/dev/null || continue
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
  done
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
  if compgen -G '.whl/*.whl' >/dev/null; then
    for folder in .whl/*.whl; do "$python" -m zipfile -e "$folder" "$scratch/site"; done
  fi
  [ -d "$scratch/site" ] && export PYTHONPATH=$scratch/site
}

left() { echo $((${BUDGET_S:-560} - SECONDS)); }

# step NAME LIMIT_S COMMAND…: its output is kept; a failure doesn't stop what follows; without a third of its limit it is left out.
step() {
  local name=$1 limit=$2 begin=$SECONDS code log
  shift 2
  if [ "$(left)" -lt $((limit / 3)) ]; then
    late+=("$name")
    return
  fi
  [ "$limit" -lt "$(left)" ] || limit=$(left)
  echo "== $name, $limit s at most"
  deadline=$((SECONDS + limit))
  log=$logs/gpu-$name.log
  # At once where it is kept, should this call be ended from outside.
  "$@" 2>&1 | tee "$log" ${OUT:+"$OUT/gpu-$name.log"}
  code=${PIPESTATUS[0]}
  echo "== $name: exit code $code, $((SECONDS - begin)) s" | tee -a "$log"
  [ "$code" = 0 ] || failed+=("$name")
  [ -z "${OUT:-}" ] || (cd "$logs" && tar -czf "$OUT/gpu-results.tar.gz" gpu-*)
}

# A whole group of processes is ended, servers too.
limited() { timeout -k 5 $((deadline > SECONDS ? deadline - SECONDS : 1)) "$@"; }

tpch() { # SCALE
  local folder=$scratch/tpch-sf$1
  if ! [ -e "$folder/made" ]; then
    rm -rf "$folder"
    limited "$TRIREME_BIN" generate tpch --scale "$1" --out "$folder" >/dev/null && touch "$folder/made"
  fi
}

devices_bench() { # SCALE ARGUMENT…
  tpch "$1" && limited "$python" benchmarks/bench_devices.py --needed --device "$device" --scale "$1" --data "$scratch/tpch-sf$1" "${opencl[@]}" "${@:2}"
}

# sanitized TOOL: the server under a checker, which is told to end by ending the server that it runs.
sanitized() {
  local log=$logs/gpu-$1-report.log
  cat >"$scratch/sanitized" <<END
#!/bin/sh
compute-sanitizer --tool $1 --log-file '$log' --error-exitcode 9 '$bin/trireme' "\$@" &
checker=\$!
trap 'for at in /proc/[0-9]*; do
  [ "\$(readlink "\$at/exe")" = "$(realpath "$bin/trireme")" ] && kill -TERM "\${at#/proc/}"
done' TERM
while kill -0 \$checker 2>/dev/null; do wait \$checker; done
END
  chmod +x "$scratch/sanitized"
  tpch "$small"
  TRIREME_BIN=$scratch/sanitized limited "$python" benchmarks/bench_devices.py --needed --device "$device" --scale "$small" \
    --data "$scratch/tpch-sf$small" --patience 120 "${serve[@]}" || return 1
  tail -3 "$log"
  grep -q 'SUMMARY: 0 ' "$log"
}

run() {
  case $1 in
  conformance)
    if [ -e "$bin/conformance" ] && [ "$device" = cuda0 ]; then
      step conformance 120 limited env TRIREME_REQUIRE_CUDA=1 TRIREME_CONFORMANCE_SECONDS=40 "$bin/conformance" --nocapture
    else
      echo '== conformance: there is no program for it'
    fi
    ;;
  correctness) step correctness 200 devices_bench "$one" --verify "${serve[@]}" "${kernels[@]}" --area gpu-correctness ;;
  interpreted) step interpreted 60 devices_bench "$small" --serve devices.kernels=interpreted --tier interpreted --area gpu-interpreted ;;
  calibration)
    if [ -e "$bin/devices" ]; then
      step calibration 90 limited "$bin/devices" "${measured[@]}" --out "$logs/gpu-calibration.json"
    else
      echo '== calibration: there is no program for it'
    fi
    ;;
  sf1) step hot-sf1 90 devices_bench "$one" --repetitions 5 "${serve[@]}" "${kernels[@]}" --area gpu-tpch-sf1 ;;
  sf10) step hot-sf10 240 devices_bench "$ten" --repetitions 5 --duckdb "${serve[@]}" "${kernels[@]}" --area gpu-tpch-sf10 ;;
  sf100) step hot-sf100 550 devices_bench 100 --repetitions 2 "${serve[@]}" "${kernels[@]}" --area gpu-tpch-sf100 ;;
  kmeans) step kmeans 200 limited "$python" benchmarks/kmeans.py --needed --device "$device" "${sizes[@]}" "${serve[@]}" --area gpu-kmeans ;;
  sanitizers)
    if command -v compute-sanitizer >/dev/null; then
      step memcheck 150 sanitized memcheck
      step racecheck 150 sanitized racecheck
    else
      echo '== sanitizers: compute-sanitizer is not there'
    fi
    ;;
  *)
    echo "there is no step $1" >&2
    exit 2
    ;;
  esac
}

case ${1:-} in
pack | wheels)
  "$1"
  exit
  ;;
rehearse)
  shift
  device=opencl0 small=0.001 one=0.01 ten=0.02
  opencl=(--serve devices.opencl=all) serve+=(--serve devices.opencl=all)
  sizes=(--sizes '4KiB,1MiB') measured=(--only opencl --seconds-per-point 0.005)
  logs=$(mktemp -d)
  ;;
*)
  if ! nvidia-smi -L 2>/dev/null && ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo 'no GPU here: libcuda.so.1 was not found; nothing was run'
    exit 0
  fi
  ;;
esac

mkdir -p "$scratch" "$logs"
[ -z "${OUT:-}" ] || OUT=$(realpath -m "$OUT")
failed=() late=()
unpacked
if ! [ -x "$bin/trireme" ]; then
  echo 'there are no binaries: carry .gpu/, or build them'
  exit 2
fi
libraries
export TRIREME_BIN=$bin/trireme TRISQL_BIN=$bin/trisql TRIREME_BENCH_DATA=$scratch/data TRIREME_BENCH_RESULTS=$logs
for name in "${@:-${all[@]}}"; do
  run "$name"
done
[ ${#late[@]} = 0 ] || echo "no time was left for: ${late[*]}"
[ ${#failed[@]} = 0 ] || echo "failed: ${failed[*]}"
[ ${#failed[@]} = 0 ]
