#!/usr/bin/env bash
# A coordinator and worker daemons on this machine.
#   deploy/local/cluster.sh start [--workers 2] [--slots 1] [--dir .trainyard]
# Its web view is on http://127.0.0.1:7072/; with another --address only if --web_port says where, --web_port 0 turns it off.
#   deploy/local/cluster.sh status | stop [--dir .trainyard]
# Everything it writes is below --dir; stop ends every process it started.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

action=${1:-}
[ $# -gt 0 ] && shift
workers=2
slots=1
dir=$root/.trainyard
address=127.0.0.1:7070
metrics_port=9464
web_port=
while [ $# -gt 0 ]; do
  case "$1" in
    --workers) workers=$2; shift 2 ;;
    --slots) slots=$2; shift 2 ;;
    --dir) dir=$(mkdir -p "$2" && cd "$2" && pwd); shift 2 ;;
    --address) address=$2; shift 2 ;;
    --metrics_port) metrics_port=$2; shift 2 ;;
    --web_port) web_port=$2; shift 2 ;;
    *) echo "cluster.sh: unknown option $1" >&2; exit 2 ;;
  esac
done

bin=${TRAINYARD_BIN:-$root/bazel-bin}
coordinator=$bin/coordinator/trainyard-coordinator
worker=$bin/worker/daemon/trainyard-worker
client=$bin/client/trainyard
export TRAINYARD_ADDRESS=$address
[ -n "$web_port" ] || { [ "$address" = 127.0.0.1:7070 ] && web_port=7072 || web_port=0; }
web=
[ "$web_port" = 0 ] || web=127.0.0.1:$web_port

# Is the process whose id FILE holds alive, and still that program?
alive() { [ -f "$1" ] && grep -aq "$2" "/proc/$(cat "$1")/cmdline" 2>/dev/null; }

# launch NAME PROGRAM ARGS...: in a session of its own, so that a Ctrl-C at the terminal stops only what is in front.
launch() {
  local name=$1
  shift
  if alive "$dir/$name.pid" "$(basename "$1")"; then
    echo "  $name already runs (pid $(cat "$dir/$name.pid"))"
    return
  fi
  setsid "$@" >>"$dir/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/$name.pid"
  echo "  $name started (pid $!), log $dir/$name.log"
}

start() {
  for program in "$coordinator" "$worker" "$client"; do
    [ -x "$program" ] || { echo "cluster.sh: $program is missing; build first: bazel build --config=opt //..." >&2; exit 1; }
  done
  mkdir -p "$dir/coordinator" "$dir/jobs"
  launch coordinator "$coordinator" --listen "$address" --data_dir "$dir/coordinator" --metrics_listen "127.0.0.1:$metrics_port" \
    --web_listen "$web"
  local i
  for ((i = 1; i <= workers; ++i)); do
    mkdir -p "$dir/worker-$i"
    launch "worker-$i" "$worker" --coordinator "$address" --state_dir "$dir/worker-$i" --job_root "$dir/jobs" \
      --data_root "$dir" --cpu_slots "$slots" --address 127.0.0.1 --metrics_listen "127.0.0.1:$((metrics_port + i))"
  done
  local ready=0 tries
  for ((tries = 0; tries < 100; ++tries)); do
    ready=$("$client" workers -o jsonl 2>/dev/null | grep -c WORKER_STATE_READY || true)
    [ "$ready" -ge "$workers" ] && break
    sleep 0.2
  done
  if [ "$ready" -lt "$workers" ]; then
    echo "cluster.sh: only $ready of $workers workers are ready after 20 s; last lines of the logs:" >&2
    tail -n 5 "$dir"/*.log >&2
    exit 1
  fi
  echo "  $ready workers ready at $address; metrics on ports $metrics_port to $((metrics_port + workers))"
  [ -z "$web" ] || echo "  web view: http://$web/"
}

stop() {
  local file pid name
  # Workers first, so that they can report the end of their tasks.
  for file in "$dir"/worker-*.pid "$dir/coordinator.pid"; do
    [ -f "$file" ] || continue
    name=$(basename "$file" .pid)
    if alive "$file" trainyard-; then
      pid=$(cat "$file")
      kill "$pid"
      local tries
      for ((tries = 0; tries < 150; ++tries)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.2
      done
      kill -9 "$pid" 2>/dev/null && echo "  $name had to be killed" || echo "  $name stopped"
    fi
    rm -f "$file"
  done
}

case "$action" in
  start) start ;;
  stop) stop ;;
  status)
    for file in $(ls "$dir"/*.pid 2>/dev/null); do
      alive "$file" trainyard- && echo "  $(basename "$file" .pid) runs (pid $(cat "$file"))" || echo "  $(basename "$file" .pid) is gone"
    done
    "$client" workers
    ;;
  *)
    echo "usage: deploy/local/cluster.sh start|status|stop [--workers N] [--slots N] [--dir DIR] [--address HOST:PORT] [--metrics_port PORT] [--web_port PORT]" >&2
    exit 2
    ;;
esac
