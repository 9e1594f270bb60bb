#!/usr/bin/env bash
# Every test, in one go: the workspace's own (cargo), object stores, real clients end to end, TPC-H against DuckDB.
#
#   tests/run.sh [cargo|stores|e2e|tpch|devices ...]      all parts without arguments
#
# TRIREME_BIN and TRISQL_BIN name built binaries; without them the ci profile is built. TRIREME_TOOLS holds the clients
# (default <root>/.tools), TPCH_SCALE is the size of the comparison (default 0.1). The last line is the sum of all counts;
# the exit code is 0 only when something ran and nothing failed.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
target=${CARGO_TARGET_DIR:-$root/target}
tools=${TRIREME_TOOLS:-$root/.tools}
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

passed=0
failed=0
skipped=0
summary=()

# part NAME COMMAND...: runs the command, shows what it prints, adds up the counts in it. A command that fails without
# counting a failure (it did not compile, it crashed) is one failure.
part() {
  local name=$1 file=$log/part begin=$SECONDS status p f s
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$file"
  status=${PIPESTATUS[0]}
  # cargo: "test result: ok. 3 passed; 0 failed; 1 ignored; …". pytest: "3 passed, 1 skipped in 2.1s".
  p=$(count passed "$file")
  f=$(($(count failed "$file") + $(count errors\\? "$file")))
  s=$(($(count skipped "$file") + $(count ignored "$file")))
  [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && f=1
  passed=$((passed + p))
  failed=$((failed + f))
  skipped=$((skipped + s))
  summary+=("$(printf '%-28s %5d passed %4d failed %4d skipped %5d s' "$name" "$p" "$f" "$s" $((SECONDS - begin)))")
}

# The sum of all "N WORD" on lines that are totals.
count() {
  grep -E '^test result: |^[0-9]+ passed, [0-9]+ failed|^=* ?[0-9]+ (passed|failed|skipped|errors?).* in [0-9.]+s|no tests ran' "$2" |
    grep -oE "[0-9]+ $1\b" | awk '{ sum += $1 } END { print sum + 0 }'
}

build() {
  if [ -z "${TRIREME_BIN:-}" ] || [ -z "${TRISQL_BIN:-}" ]; then
    scripts/build.sh ci || exit 1
    export TRIREME_BIN=${TRIREME_BIN:-$target/ci/trireme} TRISQL_BIN=${TRISQL_BIN:-$target/ci/trisql}
  fi
}

python_suite() {
  "$tools/python/bin/python" -m pytest -q -rs -p no:cacheprovider tests/e2e --ignore tests/e2e/test_sqlalchemy.py
}

sqlalchemy_suite() {
  "$tools/sqlalchemy/bin/python" -m pytest -q -rs -p no:cacheprovider tests/e2e/test_sqlalchemy.py
}

parts=${*:-cargo stores e2e tpch devices}
build
export PYTHONDONTWRITEBYTECODE=1
for each in $parts; do
  case $each in
  cargo) part 'cargo test' cargo test --profile ci --workspace --no-fail-fast ;;
  stores)
    # What the workspace's own tests can't reach: servers as processes.
    if tests/e2e/setup.sh stores; then
      part 'stores: moto, azurite' "$tools/moto/bin/python" tests/e2e/stores.py \
        cargo test --profile ci --workspace --test object_stores -- moto azurite
    else
      part 'stores: set-up' false
    fi
    ;;
  e2e)
    if tests/e2e/setup.sh; then
      part 'clients: Python, Java, JS' python_suite
      part 'clients: SQLAlchemy' sqlalchemy_suite
    else
      part 'clients: set-up' false
    fi
    ;;
  tpch)
    if tests/e2e/setup.sh python; then
      part 'TPC-H against DuckDB' "$tools/python/bin/python" tests/tpch/compare.py --scale "${TPCH_SCALE:-0.1}"
    else
      part 'TPC-H: set-up' false
    fi
    ;;
  devices)
    # Data of the smallest size: what matters is that kernels are made, compile and are right.
    if tests/e2e/setup.sh python; then
      part 'kernels: NVRTC' "$tools/python/bin/python" benchmarks/check_kernels.py \
        --checker "$target/ci/examples/check-kernels" --scale 0.01 --rows 20000
      part 'TPC-H on OpenCL' "$tools/python/bin/python" benchmarks/bench_devices.py --device opencl0 \
        --scale 0.01 --serve devices.opencl=all
    else
      part 'devices: set-up' false
    fi
    ;;
  *)
    echo "unknown part $each (cargo, stores, e2e, tpch, devices)" >&2
    exit 2
    ;;
  esac
done

printf '\n'
printf '%s\n' "${summary[@]}"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
status=$?
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
