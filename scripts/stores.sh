#!/usr/bin/env bash
# Object stores held to the conformance list (tests/simstore/tests/object_stores): simstore, memory and local files in
# process, moto and azurite as servers that are started for it.
#
#   scripts/stores.sh [CASE]      CASE: only cases whose name contains this
#
# Buckets of one's own are added by TRIREME_STORE_URLS="s3://bucket gs://bucket az://container"; their credentials come from
# the environment, as the clients take them. Every run works under a key of its own and leaves what failed cases left.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export TRIREME_TOOLS=${TRIREME_TOOLS:-$root/.tools} CASE=${1:-}

scripts/setup.sh test
tests/e2e/setup.sh stores
# All of the workspace, so that dependencies keep the features that every other build gives them.
"$TRIREME_TOOLS/moto/bin/python" tests/e2e/stores.py \
  cargo test --locked --profile ci --workspace --test object_stores -- --nocapture --test-threads 1
