#!/usr/bin/env bash
# `make test`: set-up, lints, a build of the CI profile, every test. The last line sums up all counts, those of the lints
# included; the exit code is 0 only when nothing failed.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
target=${CARGO_TARGET_DIR:-$root/target}
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

passed=0
failed=0
skipped=0

# run NAME COMMAND...: shows the output; the counts are its last line "N passed, N failed, N skipped". Without one, or with
# an error and no failure, it counts as one failure.
run() {
  local file=$log/$1 line status p f s
  shift
  "$@" 2>&1 | tee "$file"
  status=${PIPESTATUS[0]}
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$file" | tail -1)
  read -r p f s <<<"$(tr -cs '0-9' ' ' <<<"${line:-0 0 0}")"
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  passed=$((passed + p))
  failed=$((failed + f))
  skipped=$((skipped + s))
}

finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit
}

if ! scripts/setup.sh test; then
  failed=1
  finish
fi
run lint scripts/lint.sh
if ! scripts/build.sh ci; then
  failed=$((failed + 1))
  finish
fi
export TRIREME_BIN=$target/ci/trireme TRISQL_BIN=$target/ci/trisql
run tests tests/run.sh
echo
finish
