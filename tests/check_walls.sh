#!/usr/bin/env bash
# The dependency walls of ARCHITECTURE.md, asked of Bazel's own graph. A path across a wall is printed and fails.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0

# wall FROM TO: nothing in FROM may reach anything in TO.
wall() {
  local path
  if ! path=$(bazel query --noshow_progress "somepath($1, $2)" 2>/tmp/walls.$$); then
    cat /tmp/walls.$$
    status=1
  elif [ -n "$path" ]; then
    echo "wall crossed: $1 -> $2"
    echo "$path" | sed 's/^/  /'
    status=1
  fi
  rm -f /tmp/walls.$$
}

# Tests and benchmarks may look anywhere; the walls bind what ships.
ships() { echo "kind('cc_(library|binary)', $1) except attr(testonly, 1, $1)"; }

kernels='//kernels/...'
grpc='//third_party:grpc'
wall "$(ships //client/...)" "$kernels"
wall "$(ships //coordinator/...)" "$kernels"
wall "$(ships //worker/daemon/...)" "$kernels"
wall "$(ships //kernels/...)" '//proto/... + //coordinator/... + //worker/... + //client/...'
wall "$(ships //base/...)" '//proto/... + //kernels/... + //coordinator/... + //worker/... + //client/...'
wall "$(ships //scaling/...)" '//proto/... + //kernels/... + //coordinator/... + //worker/... + //client/...'
wall "$(ships //coordinator/core/...)" "$grpc + //third_party:sqlite + //third_party:prometheus"
for part in model linear optim train data ckpt cache comm jobs runner; do
  wall "$(ships //worker/$part/...)" "$grpc + //worker/daemon/... + //coordinator/... + //client/..."
done
for part in model linear optim train data; do
  wall "$(ships //worker/$part/...)" '//worker/comm/gloo/... + //worker/runner/... + //worker/jobs/...'
done
wall "$(ships //client/...)" '//coordinator/... + //worker/...'
wall "$(ships //coordinator/...)" '//worker/... + //client/...'
exit $status
