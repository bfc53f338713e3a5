#!/usr/bin/env bash
# Installs what the tests need (Debian packages), builds everything, runs every check, and says what happened.
#   tests/run.sh            all of it
#   tests/run.sh --quick    no sanitizers: for the minutes between two edits
set -uo pipefail
cd "$(dirname "$0")/.."

quick=false
case "${1:-}" in
  "") ;;
  --quick) quick=true ;;
  *)
    echo "usage: tests/run.sh [--quick]" >&2
    exit 2
    ;;
esac

units=(//base/... //proto/... //scaling/... //kernels/... //coordinator/... //worker/... //client/...)
all=("${units[@]}" //deploy/... //tests/...)
# A named subset: every unit test under each sanitizer would double the time of the gate.
asan=(//base/... //kernels/codec/... //kernels/quant/... //kernels/transform/... //kernels/optim/... //kernels/prune/...
  //worker/data/... //worker/comm/... //worker/ckpt/... //worker/cache/...)
tsan=(//base/... //coordinator/core/... //worker/cache/... //worker/comm:gradient_exchange_test //worker/comm/local/... //kernels/core/...)
passed=0
failed=0
failures=()
started=$SECONDS

# step NAME COMMAND...: one check that either passes or fails as a whole.
step() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    failures+=("$name")
  fi
  echo "   $((SECONDS - began)) s"
}

# suite NAME BAZEL-ARGUMENTS...: test targets; counts the cases inside them.
suite() {
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  local log
  log=$(mktemp)
  # Only what tests need: a bare //... would compile every library a second time, as a shared one nobody links.
  bazel test --noshow_progress --build_tests_only "$@" 2>&1 | tee "$log" | grep -vE '^(INFO|Loading|Analyzing)'
  local status=${PIPESTATUS[0]}
  local ok=0 bad=0 file
  while read -r file; do
    read -r o b < <(tests/count_cases.py "$file")
    ok=$((ok + o))
    bad=$((bad + b))
  done < <(grep -oE '^//[^ ]+ +.*(PASSED|FAILED|TIMEOUT)' "$log" | awk '{print $1}' |
    sed 's|^//||; s|:|/|; s|^|bazel-testlogs/|; s|$|/test.xml|' | sort -u)
  # A target that did not build, or died before it could say which cases failed, counts as one failure.
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  [ "$bad" = 0 ] || failures+=("$name")
  passed=$((passed + ok))
  failed=$((failed + bad))
  rm -f "$log"
  echo "   $ok passed, $bad failed, $((SECONDS - began)) s"
}

third_party/install_packages.sh test || exit 1

step "format" tests/check_format.sh
step "dependency walls" tests/check_walls.sh
step "dashboards, rules and alerts" tests/deploy/check_views.py
step "Kubernetes manifests" tests/deploy/check_manifests.py
build_programs() {
  bazel build --config=opt --noshow_progress $(bazel query --noshow_progress "kind(cc_binary, set(${all[*]}))" 2>/dev/null) 2>&1 |
    grep -vE '^(INFO|Loading|Analyzing)'
  return "${PIPESTATUS[0]}"
}
step "programs and benchmarks build" build_programs
step "names that deploy/ and the programs share" tests/deploy/check_names.py
step "queries of dashboards, consoles and rules on a live cluster" tests/deploy/check_queries.py
step "web view in a browser, on a live cluster that trains" tests/web/check_web.py --many 100
step "pods as the manifests describe them" tests/deploy/run_as_deployed.py
suite "unit and integration tests" --config=opt --test_summary=short --test_tag_filters=-gpu "${all[@]}"
suite "CUDA kernels and training on the emulated device" --config=opt --config=simt --test_summary=short \
  --test_tag_filters=gpu //kernels/... //worker/...
if [ -x /usr/local/cuda/bin/nvcc ]; then
  # No GPU is needed: what nvcc made must link, and a program built for GPUs must pass its CPU tests. One architecture,
  # for time; --config=cuda compiles all of them.
  step "CUDA build: all kernels by nvcc, linked into the worker's programs" bazel build --config=opt --config=sm90 \
    --noshow_progress //worker/runner:trainyard-runner //worker/tools:trainyard-local
  suite "CPU tests of programs built for GPUs" --config=opt --config=sm90 --test_summary=short \
    --test_tag_filters=-gpu //kernels/gemm/... //kernels/norm/... //worker/train:trainer_test
else
  echo "== CUDA build: skipped, /usr/local/cuda has no nvcc"
fi
step "lock annotations (clang -Wthread-safety)" tests/check_thread_safety.sh
if ! $quick; then
  suite "address and undefined-behaviour sanitizers over base, kernels/{codec,quant,transform,optim,prune}, worker/{data,comm,ckpt,cache}" \
    --config=asan --test_summary=short --test_tag_filters=-process,-no_asan "${asan[@]}"
  suite "thread sanitizer over base, coordinator/core, worker/cache, comm/local and the thread pool" --config=tsan \
    --test_summary=short --test_tag_filters=-process,-no_tsan "${tsan[@]}"
fi
bazel shutdown

echo
if [ "$failed" -gt 0 ]; then
  printf 'Failed: %s\n' "${failures[@]}"
  echo "Look at bazel-testlogs/<package>/<target>/test.log; run one target with: bazel test --config=opt //package:target"
else
  echo "All checks passed in $((SECONDS - started)) s. Next: deploy/local/quickstart.sh trains a model on two workers."
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
