#!/usr/bin/env bash
# Called by `make bench-service`: the tools it needs, a release build unless TRIREME_BIN names one, then the figures.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TRIREME_TOOLS:-$root/.tools}
"$root/tests/e2e/setup.sh" python
if [ -z "${TRIREME_BIN:-}" ]; then
  "$root/scripts/build.sh" release
  export TRIREME_BIN=${CARGO_TARGET_DIR:-$root/target}/release/trireme
fi
exec "$tools/python/bin/python" "$root/benchmarks/bench_service.py" "$@"
