#!/usr/bin/env bash
# What only a machine with an NVIDIA GPU can show, in one table: every op's test on the device, training beside the CPU,
# collectives over NCCL, and jobs end to end.
#
#   tests/gpu/run.sh                    builds (--config=cuda), then runs
#   tests/gpu/run.sh --bundle DIR       builds, and puts what runs into DIR, to be carried to a machine without a compiler
#   tests/gpu/run.sh --from DIR         runs what --bundle put there
#   tests/gpu/run.sh --emulated         the same list on the emulated device: for trying this script without a GPU
#
# With compute-sanitizer on the path, SANITIZE=memcheck (or racecheck ...) runs the op tests under it. The table goes to
# stdout and to gpu-tests.md in the current directory. Exit status 1 if anything failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=$PWD
config=cuda
mode=run
bundle=
case "${1:-}" in
  "") ;;
  --emulated) config=simt ;;
  --bundle | --from)
    mode=${1#--}
    bundle=${2:?"usage: tests/gpu/run.sh $1 DIR"}
    mkdir -p "$bundle"
    bundle=$(cd "$bundle" && pwd)
    ;;
  *)
    grep -E '^#   tests' "$0" | cut -c5- >&2
    exit 2
    ;;
esac

# The programs behind the targets that are tagged gpu, one label a line.
programs() {
  bazel query --noshow_progress \
    'attr(tags, "gpu", kind(cc_test, //kernels/... + //worker/...)) union
     kind(cc_test, deps(attr(tags, "gpu", kind(sh_test, //kernels/... + //worker/...)), 1))' 2>/dev/null
}

if [ "$mode" != from ]; then
  list=$(programs)
  bazel build --config=opt --config=$config --noshow_progress $list //worker/tools:trainyard-local
  output=$(bazel info --config=opt --config=$config bazel-bin 2>/dev/null)
  [ "$mode" = bundle ] || bundle=$(mktemp -d)
  mkdir -p "$bundle/tests" "$bundle/lib"
  for label in $list //worker/tools:trainyard-local; do
    file=${label#//}
    cp -f "$output/${file/://}" "$bundle/tests/$(echo "${file/://}" | tr / .)"
  done
  git rev-parse HEAD >"$bundle/commit"
  # The shared libraries beside libc: another machine has its own, or none. CUDA's own come with its driver and toolkit.
  ldd "$bundle"/tests/* | awk '/=> \// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcuda|libcublas[^/]*|libnccl)\.so' |
    xargs -I{} cp -Lf {} "$bundle/lib/"
  if [ "$mode" = bundle ]; then
    cp -f "$0" "$bundle/run.sh"
    echo "$(ls "$bundle/tests" | wc -l) programs in $bundle ($(du -sh "$bundle" | cut -f1)). There: tests/gpu/run.sh --from DIR"
    exit 0
  fi
fi

export LD_LIBRARY_PATH="$bundle/lib:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
export TY_TEST_DEVICE=cuda
table=$repository/gpu-tests.md
device=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -1 || true)
[ "$config" = simt ] && device="emulated device"
{
  echo "Commit $(cat "$bundle/commit"), ${device:-no GPU}, $(date -u +%F)"
  echo
  echo "| test | passed | failed | skipped | seconds |"
  echo "|---|---|---|---|---|"
} | tee "$table"

bad=0
for program in "$bundle"/tests/*_test; do
  name=$(basename "$program")
  prefix=()
  if [ -n "${SANITIZE:-}" ]; then prefix=(compute-sanitizer --error-exitcode 1 --tool "$SANITIZE"); fi
  report=$(mktemp)
  began=$SECONDS
  status=0
  (cd "$(mktemp -d)" && "${prefix[@]}" "$program" --gtest_output="xml:$report" >"$report.log" 2>&1) || status=$?
  counts=$(python3 - "$report" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    root = tree.parse(sys.argv[1]).getroot()
    n = lambda k: sum(int(s.get(k, 0)) for s in root)
    print(n("tests") - n("failures") - n("skipped"), n("failures"), n("skipped"))
except (OSError, tree.ParseError):
    print("0 0 0")
PY
)
  read -r passed failed skipped <<<"$counts"
  note=
  if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    failed=1
    note=" (exit status $status)"
  fi
  grep -q '^SKIPPED' "$report.log" && note=" ($(grep -m1 '^SKIPPED' "$report.log"))"
  echo "| ${name}${note} | $passed | $failed | $skipped | $((SECONDS - began)) |" | tee -a "$table"
  if [ "$failed" != 0 ]; then
    bad=$((bad + failed))
    tail -n 20 "$report.log" >&2
  fi
done
echo "$bad failed; the table is in $table"
[ "$bad" = 0 ]
