#!/usr/bin/env bash
# Called by the bench targets of make: the tools a benchmark needs, a release build unless TRIREME_BIN names one, then the
# figures.
#
#   benchmarks/bench.sh SCRIPT [its arguments]      SCRIPT is a file here, without .py
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TRIREME_TOOLS:-$root/.tools}
script=$1
shift
"$root/tests/e2e/setup.sh" python
if [ "$script" = bench_tpch ] && ! "$tools/python/bin/python" -c 'import tableauhyperapi' 2> /dev/null; then
  "$tools/python/bin/pip" install --quiet tableauhyperapi || echo '# hyper is left out: its package is not there' >&2
fi
if [ "$script" = bench_lake ]; then
  "$root/tests/e2e/setup.sh" lake
fi
if [ -z "${TRIREME_BIN:-}" ]; then
  "$root/scripts/build.sh" release
  export TRIREME_BIN=${CARGO_TARGET_DIR:-$root/target}/release/trireme
fi
if [ "$script" = bench_lake ]; then
  export SIMSTORE_BIN=${SIMSTORE_BIN:-${CARGO_TARGET_DIR:-$root/target}/release/simstore}
fi
exec "$tools/python/bin/python" "$root/benchmarks/$script.py" "$@"
