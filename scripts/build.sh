#!/usr/bin/env bash
# Builds the whole workspace and puts the two binaries where people look for them.
#
#   scripts/build.sh release|ci
#
# Always the whole workspace: selecting packages changes which features the dependencies are built with, and so builds
# them all again. The binaries are hard-linked (copied across file systems) to target/<profile>/ in the clone.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
profile=${1:-release}
target=${CARGO_TARGET_DIR:-$root/target}

cargo build --locked --workspace --profile "$profile"

mkdir -p "$root/target/$profile"
for name in trireme trisql; do
  from=$target/$profile/$name
  to=$root/target/$profile/$name
  [ "$from" -ef "$to" ] && continue
  # A new name first: a running binary is never written over.
  rm -f "$to.new"
  ln "$from" "$to.new" 2>/dev/null || cp "$from" "$to.new"
  mv -f "$to.new" "$to"
done
