#!/usr/bin/env bash
# Installs what a part of the work needs and lacks, or says plainly what to install.
#
#   scripts/setup.sh [build|test]      build: a C compiler and Rust; test (default): also Python's venv, Java, Maven, Node
#
# Only missing packages are installed, by apt-get, when we are root or sudo asks for no password. With everything there it
# is a matter of milliseconds. Then it claims the shared target folder for this clone. Python packages, the JDBC driver, the
# JavaScript client and the servers of object stores are tests/e2e/setup.sh's.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
part=${1:-test}
# The oldest compiler the dependencies allow; Cargo.toml says it too.
rust_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

missing=()
packages=()

has() { command -v "$1" >/dev/null 2>&1; }

# need WHAT PACKAGE...: remembers what is missing, for people and for apt-get.
need() {
  local what=$1
  shift
  missing+=("$what")
  packages+=("$@")
}

check_build() {
  has cc || need 'a C compiler' build-essential
}

check_test() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || need "Python's venv" python3-venv
  has javac || need 'a JDK' default-jdk-headless
  has mvn || need 'Maven' maven
  has node || need 'Node.js' nodejs
  has npm || need 'npm' npm
  has openssl || need 'openssl' openssl
  has flock || need 'flock' util-linux
  ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1' && compgen -G '/etc/OpenCL/vendors/*.icd' >/dev/null ||
    need 'an OpenCL device (PoCL)' pocl-opencl-icd ocl-icd-libopencl1
}

check_rust() {
  if ! has cargo; then
    echo "setup: Rust is missing. Install $rust_min or newer with rustup (https://rustup.rs) and run again." >&2
    exit 1
  fi
  local found
  found=$(rustc --version | awk '{ print $2 }')
  if [ "$(printf '%s\n%s\n' "$rust_min" "$found" | sort -V | head -1)" != "$rust_min" ]; then
    echo "setup: Rust $found is too old. Install $rust_min or newer (rustup update stable) and run again." >&2
    exit 1
  fi
}

install() {
  local as_root=() list="${packages[*]}" lacking
  lacking=$(printf '%s, ' "${missing[@]}")
  lacking=${lacking%, }
  if ! has apt-get; then
    echo "setup: missing: $lacking. Install them (Debian's names: $list) and run again." >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! has sudo || ! sudo -n true 2>/dev/null; then
      echo "setup: missing: $lacking; this user may not install them. Run this, then try again:" >&2
      echo "  sudo apt-get update && sudo apt-get install -y $list" >&2
      exit 1
    fi
    as_root=(sudo -n)
  fi
  echo "setup: installing $list" >&2
  if ! "${as_root[@]}" apt-get update -qq >&2 ||
    ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2; then
    echo "setup: apt-get could not install $list; install them by hand and run again." >&2
    exit 1
  fi
}

# Clones share a target folder, and Cargo names our packages by their place in the clone: the products of another clone
# whose sources are newer than ours would pass for ours. So the folder notes whose they are, and a change of clone makes
# all our sources newer than any product. The dependencies stay.
claim_target() {
  local stamp=${CARGO_TARGET_DIR:-$root/target}/.clone
  [ "$(cat "$stamp" 2>/dev/null)" != "$root" ] || return 0
  mkdir -p "$(dirname "$stamp")"
  find "$root" -path "$root/target" -prune -o \( -name '*.rs' -o -name Cargo.toml \) -exec touch {} +
  printf '%s\n' "$root" >"$stamp"
}

check_rust
check_build
case $part in
build) ;;
test) check_test ;;
*)
  echo "setup: unknown part $part (build, test)" >&2
  exit 2
  ;;
esac
[ ${#packages[@]} -eq 0 ] || install
claim_target
