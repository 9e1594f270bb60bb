#!/usr/bin/env bash
# Installs what the end-to-end tests need, each part once: Python venvs, the JDBC driver and its
# test class, the JavaScript client, servers of object stores. A stamp per part makes a warm run a matter of milliseconds.
# Everything lands under TRIREME_TOOLS (default: <root>/.tools), nothing in the tree.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${TRIREME_TOOLS:-$root/.tools}
driver_versions='19.0.0 18.3.0'
mkdir -p "$tools"

# One set-up at a time: `make test` and `make bench-service` may start together.
exec 9>"$tools/.lock"
flock 9

say() { printf 'setup: %s\n' "$*" >&2; }

# apt_install COMMAND PACKAGE...: a no-op when COMMAND is there; a plain word when we may not install it.
apt_install() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  say "installing $* ($command is missing)"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo='sudo -n'
  if ! command -v apt-get >/dev/null ||
    ! { $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null; }; then
    say "could not install $*; install it by hand and run again"
    exit 1
  fi
}

# stamped NAME INPUT...: true when part NAME was set up from exactly these inputs.
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
stamped() { [ -f "$tools/$1.stamp" ] && [ "$(cat "$tools/$1.stamp")" = "$2" ]; }

venv() {
  local name=$1 requirements=$2 sum
  sum=$(digest "$requirements")
  stamped "$name" "$sum" && return
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt_install trireme-no-venv python3-venv python3-pip
  fi
  say "Python venv $tools/$name"
  rm -rf "${tools:?}/$name" "$tools/$name.stamp"
  python3 -m venv "$tools/$name"
  "$tools/$name/bin/python" -m pip install --quiet --disable-pip-version-check --prefer-binary -r "$requirements"
  echo "$sum" >"$tools/$name.stamp"
}

java_part() {
  local sum version dir=$tools/java
  apt_install javac default-jdk-headless
  sum=$(digest "$here"/java/*.java)
  stamped java "$sum" && return
  mkdir -p "$dir"
  if ! compgen -G "$dir/flight-sql-jdbc-driver-*.jar" >/dev/null; then
    apt_install mvn maven
    # The newest first; a mirror of Maven Central may not have it yet.
    for version in $driver_versions; do
      say "JDBC driver $version"
      mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
        -Dartifact="org.apache.arrow:flight-sql-jdbc-driver:$version" -DoutputDirectory="$dir" </dev/null \
        >"$tools/maven.log" 2>&1 && break
      say "JDBC driver $version is not to be had here"
    done
  fi
  if ! compgen -G "$dir/flight-sql-jdbc-driver-*.jar" >/dev/null; then
    say "no JDBC driver could be fetched; $tools/maven.log says why"
    exit 1
  fi
  say 'Java test classes'
  javac -encoding UTF-8 -d "$dir/classes" "$here"/java/*.java
  echo "$sum" >"$tools/java.stamp"
}

js_part() {
  local sum dir=$tools/js
  apt_install node nodejs npm
  apt_install npm nodejs npm
  sum=$(digest "$here/js/package.json")
  stamped js "$sum" && return
  say 'JavaScript client'
  rm -rf "$dir"
  mkdir -p "$dir"
  cp "$here/js/package.json" "$dir/"
  (cd "$dir" && npm install --silent --no-audit --no-fund --no-package-lock)
  echo "$sum" >"$tools/js.stamp"
}

# Servers of object stores: moto for S3, azurite for Azure.
stores_part() {
  local sum dir=$tools/azurite
  venv moto "$here/requirements-stores.txt"
  apt_install node nodejs npm
  apt_install npm nodejs npm
  sum=$(digest "$here/azurite/package.json")
  stamped azurite "$sum" && return
  say 'azurite'
  rm -rf "$dir" "$tools/azurite.stamp"
  mkdir -p "$dir"
  cp "$here/azurite/package.json" "$dir/"
  (cd "$dir" && npm install --silent --no-audit --no-fund --no-package-lock)
  echo "$sum" >"$tools/azurite.stamp"
}

# Parts may be named: `setup.sh python` is all that the benchmarks need.
parts=${*:-python sqlalchemy java js stores}
for part in $parts; do
  case $part in
  python) venv python "$here/requirements.txt" ;;
  sqlalchemy) venv sqlalchemy "$here/requirements-sqlalchemy.txt" ;;
  java) java_part ;;
  js) js_part ;;
  stores) stores_part ;;
  lake) venv lake "$here/requirements-lake.txt" ;;
  *)
    say "unknown part $part (python, sqlalchemy, java, js, stores, lake)"
    exit 2
    ;;
  esac
done
