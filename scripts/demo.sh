#!/usr/bin/env bash
# `make demo`: from a fresh clone to 22 TPC-H queries over Flight SQL.
#
#   scripts/demo.sh          SF=1 scale factor, KEEP=1 leaves the server running, DATA=DIR another data folder
#   scripts/demo.sh clean    removes the data of earlier runs
#
# Nothing here is special to the demo but the data: the server runs on its embedded defaults, trisql as any user's would.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
scale=${SF:-1}
keep=${KEEP:-0}
# Other scales get folders of their own, so that no data is ever made in the place of other data.
data=${DATA:-./trireme-data}
[ -n "${DATA:-}" ] || [ "$scale" = 1 ] || data=./trireme-data-sf$scale
bin=$root/target/release
log=$root/target/demo-server.log
pid_file=$root/target/demo-server.pid
ready_limit_s=30
flight_port=7433
http_port=7480
pid=

# Settings of the caller must not reach the server: the demo shows the defaults.
for name in $(compgen -e TRIREME_ || true); do
  case $name in TRIREME_TOOLS) ;; *) unset "$name" ;; esac
done

say() { printf '\n== %s\n' "$*"; }

main() {
  refuse_second_server
  scripts/setup.sh build
  say 'Build (release; the first one takes a good while)'
  scripts/build.sh release
  make_data
  start_server
  run_queries
  how_to_connect
  if [ "$keep" = 1 ]; then
    echo "The server goes on (process $pid, log ${log#"$root"/}). Stop it with: kill $pid"
    pid=
  else
    stop_server
    echo 'The server is stopped; KEEP=1 make demo leaves it running.'
  fi
  [ "$failures" -eq 0 ]
}

# Two servers never share a data folder; the second one would only say that it is locked.
refuse_second_server() {
  local old
  old=$(cat "$pid_file" 2>/dev/null || true)
  if [ -n "$old" ] && [[ $(readlink "/proc/$old/exe") == */trireme* ]]; then
    echo "demo: the server of an earlier demo still runs; stop it first: kill $old" >&2
    exit 1
  fi
}

# A file beside the tables tells whose they are: made whole, made in part (by a run that was stopped), or a user's own.
make_data() {
  local whole=$data/.tpch-sf$scale part=$data/.tpch-sf$scale.part again=()
  if [ -e "$whole" ]; then
    say "TPC-H data, scale factor $scale: $data is there already"
    return
  fi
  say "TPC-H data, scale factor $scale, into $data"
  mkdir -p "$data"
  if [ -e "$part" ]; then
    again=(--overwrite)
  elif compgen -G "$data/lineitem*" >/dev/null; then
    echo "demo: $data holds a table lineitem that the demo did not make; choose another folder with DATA=…" >&2
    exit 1
  fi
  touch "$part"
  "$bin/trireme" generate tpch --scale "$scale" --out "$data" "${again[@]}"
  mv "$part" "$whole"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  for port in $(seq "$(($1 + 1))" "$(($1 + 200))"); do
    port_taken "$port" || {
      echo "$port"
      return
    }
  done
  echo "demo: no free port after $1" >&2
  return 1
}

is_ready() {
  local answer
  answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$http_port" && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3) 2>/dev/null) || return 1
  [[ $answer == *' 200 '* ]]
}

start_server() {
  local arguments=() begin
  [ "$data" = ./trireme-data ] || arguments+=(--data "$data")
  if port_taken $flight_port; then
    flight_port=$(free_port $flight_port)
    echo "Port 7433 is taken; the demo uses $flight_port."
    arguments+=(--listen "127.0.0.1:$flight_port")
  fi
  if port_taken $http_port; then
    http_port=$(free_port $http_port)
    echo "Port 7480 is taken; the demo uses $http_port."
    arguments+=(--http "127.0.0.1:$http_port")
  fi
  say "Server: trireme serve ${arguments[*]}"
  # A session of its own: Ctrl-C ends the demo, and the demo ends the server.
  setsid "$bin/trireme" serve "${arguments[@]}" </dev/null >"$log" 2>&1 &
  pid=$!
  echo "$pid" >"$pid_file"
  trap stop_server EXIT
  begin=$SECONDS
  until is_ready; do
    if ! kill -0 "$pid" 2>/dev/null; then
      pid=
      echo 'demo: the server ended:' >&2
      cat "$log" >&2
      exit 1
    fi
    if [ $((SECONDS - begin)) -ge $ready_limit_s ]; then
      echo "demo: the server is not ready after $ready_limit_s s; its log is $log" >&2
      exit 1
    fi
    sleep 0.05
  done
}

stop_server() {
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -f "$pid_file"
  pid=
}

sql() { "$bin/trisql" "127.0.0.1:$flight_port" -X -q --format jsonl "$@"; }

# Where a query's parts run, from its plan: fragments on a device's variant, and whether DataFusion's operators do the rest.
ran_on() {
  local plan where count
  { printf 'EXPLAIN\n' && grep -v '^--' "$1"; } >"$2"
  plan=$(sql -f "$2")
  where=$(grep -o 'FragmentExec: [^,]*' <<<"$plan" | head -n 1 | cut -d' ' -f2 || true)
  count=$(grep -o 'fragments=[0-9]*' <<<"$plan" | awk -F= '{ sum += $2 } END { print sum }' || true)
  if [ -z "$where" ]; then
    echo 'cpu0/datafusion'
  elif [[ $plan == *UnfusedExec* ]]; then
    echo "$where (${count:-?} fragments), cpu0/datafusion"
  else
    echo "$where (${count:-?} fragments)"
  fi
}

run_queries() {
  local where file name rows ms total_ms=0 out
  out=$(mktemp -d)
  failures=0
  say "22 TPC-H queries through trisql, scale factor $scale"
  printf '%-6s %8s %9s   %s\n' query rows seconds 'ran on'
  for file in tests/tpch/q??.sql; do
    name=$(basename "$file" .sql)
    where=$(ran_on "$file" "$out/explain.sql")
    if sql --timing -f "$file" >"$out/rows" 2>"$out/notes"; then
      rows=$(wc -l <"$out/rows")
      ms=$(awk '/^Time:/ { sum += $2 } END { printf "%.3f", sum }' "$out/notes")
      total_ms=$(awk "BEGIN { print $total_ms + $ms }")
      printf '%-6s %8d %9.3f   %s\n' "$name" "$rows" "$(awk "BEGIN { print $ms / 1000 }")" "$where"
    else
      failures=$((failures + 1))
      printf '%-6s %8s %9s   %s\n' "$name" - - "failed: $(head -n 1 "$out/notes")"
    fi
  done
  printf '%-6s %8s %9.3f\n' total '' "$(awk "BEGIN { print $total_ms / 1000 }")"
  [ "$failures" -eq 0 ] || echo "$failures of 22 queries failed"
  rm -rf "$out"
}

how_to_connect() {
  cat <<EOF

== Connect
trisql       target/release/trisql 127.0.0.1:$flight_port
ADBC         pip install adbc-driver-flightsql adbc-driver-manager pyarrow
             import adbc_driver_flightsql.dbapi as db; db.connect("grpc://127.0.0.1:$flight_port")
JDBC         jdbc:arrow-flight-sql://127.0.0.1:$flight_port?useEncryption=false
             (driver org.apache.arrow:flight-sql-jdbc-driver; Java needs --add-opens=java.base/java.nio=ALL-UNNAMED)
SQLAlchemy   pip install flightsql-dbapi 'sqlalchemy<2'
             create_engine("datafusion+flightsql://127.0.0.1:$flight_port?insecure=True")
HTTP         http://127.0.0.1:$http_port/metrics

EOF
}

# Only what make_data made: the tables of folders that carry its mark.
clean() {
  local mark folder table
  refuse_second_server
  for mark in ./trireme-data/.tpch-sf* ./trireme-data-sf*/.tpch-sf*; do
    [ -e "$mark" ] || continue
    folder=$(dirname "$mark")
    for table in customer lineitem nation orders part partsupp region supplier; do
      rm -f "$folder/$table.parquet"
    done
    rm -f "$mark"
    echo "removed the demo's tables in $folder"
  done
}

case ${1:-} in
'') main ;;
clean) clean ;;
*)
  echo "demo: unknown word $1 (clean)" >&2
  exit 2
  ;;
esac
