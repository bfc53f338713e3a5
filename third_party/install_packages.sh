#!/usr/bin/env bash
# Installs the Debian 12 packages that a purpose needs: build | demo | test (each includes the ones before it).
# Does nothing, and needs no network, when all are there.
set -euo pipefail

build=(
  g++ bazel-bootstrap bazel-rules-java default-jdk-headless python3-minimal
  protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libgrpc++-dev libabsl-dev
  libspdlog-dev prometheus-cpp-dev libgloo-dev libopenblas-dev libsqlite3-dev
  libcivetweb-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libssl-dev
  libpng-dev zlib1g-dev
)
demo=(bible-kjv bible-kjv-text jargon-text wordnet-base dataset-fashion-mnist)
test=(libgtest-dev libgmock-dev libbenchmark-dev clang clang-format-14 prometheus procps git
  python3 python3-yaml python3-pip yamllint busybox-static iproute2 util-linux
  chromium openssl libnss3-tools)

case "${1:-}" in
  build) wanted=("${build[@]}") ;;
  demo) wanted=("${build[@]}" "${demo[@]}") ;;
  test) wanted=("${build[@]}" "${demo[@]}" "${test[@]}") ;;
  *)
    echo "usage: $0 build|demo|test" >&2
    exit 2
    ;;
esac

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "$0: not root and no sudo; install by hand: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update -q &&
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "$0: apt-get failed; the whole log is $log" >&2
  exit 1
fi
rm -f "$log"
