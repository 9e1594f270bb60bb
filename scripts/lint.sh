#!/usr/bin/env bash
# Checks that need no run of ours. Each is counted; the last line counts them.
#
#   scripts/lint.sh [fmt|clippy|deny|python|shell ...]      all without arguments
#
# The tools for Python and shell come from PyPI into a venv of their own (TRIREME_TOOLS/lint).
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 2
tools=${TRIREME_TOOLS:-$root/.tools}
requirements=$root/scripts/lint-requirements.txt

passed=0
failed=0
skipped=0
# A check's way to say that it could not be made.
skip=77

check() {
  local name=$1 begin=$SECONDS
  printf '\n== lint: %s\n' "$name"
  local status=0
  "check_$name" || status=$?
  case $status in
  0)
    passed=$((passed + 1))
    echo "ok ($((SECONDS - begin)) s)"
    ;;
  "$skip")
    skipped=$((skipped + 1))
    echo 'skipped'
    ;;
  *)
    failed=$((failed + 1))
    echo "FAILED: $name"
    ;;
  esac
}

check_fmt() { cargo fmt --all --check; }

check_clippy() { cargo clippy --locked --profile ci --workspace --all-targets -- -D warnings; }

# Bans, licences and sources of dependencies: deny.toml. cargo-deny has no ready-made binary that can be had everywhere,
# so tests/src/tidy.rs holds the tree to the same file; whoever has cargo-deny gets its fuller look too.
check_deny() {
  if ! command -v cargo-deny >/dev/null; then
    echo 'cargo-deny is not installed; deny.toml is checked by the tests (tests/src/tidy.rs)'
    return "$skip"
  fi
  cargo-deny --locked check --hide-inclusion-graph bans licenses sources
}

check_python() { venv && git ls-files -z --cached --others --exclude-standard '*.py' | xargs -0 "$tools/lint/bin/ruff" check --quiet --no-cache --select E9,F; }

check_shell() { venv && git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run | xargs -0 "$tools/lint/bin/shellcheck" --severity warning; }

# The venv of the lint tools, made once for these requirements.
venv() {
  local stamp=$tools/lint.stamp sum
  sum=$(sha256sum <"$requirements")
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && [ -x "$tools/lint/bin/ruff" ] && return
  mkdir -p "$tools"
  (
    flock 9
    rm -rf "${tools:?}/lint" "$stamp"
    python3 -m venv "$tools/lint" &&
      "$tools/lint/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$requirements" &&
      echo "$sum" >"$stamp"
  ) 9>"$tools/.lint.lock" || {
    echo "lint: the tools of $requirements could not be installed; pip's words stand above" >&2
    return 1
  }
}

[ $# -gt 0 ] || set -- fmt deny python shell clippy
for name in "$@"; do
  case $name in
  fmt | clippy | deny | python | shell) check "$name" ;;
  *)
    echo "lint: unknown check $name (fmt, clippy, deny, python, shell)" >&2
    exit 2
    ;;
  esac
done

printf '\n%s\n' "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
