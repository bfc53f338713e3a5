#!/usr/bin/env bash
# A bare Debian 12 made by mmdebstrap, with the packages of the images' bills of materials and nothing else, runs the programs:
# so the bills are complete, and the same packages do on a host without containers.
#   tests/deploy/run_on_debian.sh BIN [DIR]    # BIN is laid out like bazel-bin; needs root, mmdebstrap and a Debian mirror
# Prints the time and size of each part. Not part of the gate: it fetches about 60 packages.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 1 ] || { echo "usage: $0 BIN [DIR]" >&2; exit 2; }
bin=$1
work=${2:-$(mktemp -d)}
[ $# -ge 2 ] || trap 'rm -rf "$work"' EXIT
chmod 755 "$work"   # the daemons are not root
debian=$work/debian
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

for role in coordinator worker; do "$root/deploy/docker/make_rootfs.sh" $role "$bin" "$work/$role"; done
packages=$(python3 - "$work"/*/usr/share/trainyard/sbom.cdx.json <<'END'
import json, sys
parts = [part for path in sys.argv[1:] for part in json.load(open(path))["components"] if part["type"] == "library"]
print(",".join(sorted({part["name"] for part in parts})))
END
)
began=$(now)
mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$debian"
echo "bare Debian 12 with $(tr ',' '\n' <<<"$packages" | wc -l) packages: $(since "$began"), $(du -sm "$debian" | cut -f1) MiB"
began=$(now)
install -m 755 "$work"/*/usr/local/bin/* "$debian/usr/local/bin/"
chroot "$debian" useradd --uid 65532 --create-home trainyard
for program in "$debian"/usr/local/bin/trainyard*; do
  if chroot "$debian" ldd "/usr/local/bin/$(basename "$program")" | grep 'not found'; then
    echo "FAILED: $(basename "$program") lacks libraries" >&2
    exit 1
  fi
done
install -d -o 65532 -g 65532 "$debian/var/lib/trainyard" "$debian/var/lib/trainyard-worker"
echo "programs installed, all libraries there: $(since "$began")"

# Both daemons in one network of their own, which has nothing but loopback.
cat >"$debian/start.sh" <<'END'
set -eu
ip link set lo up 2>/dev/null || true
start=$(date +%s%N)
trainyard-coordinator --data_dir /var/lib/trainyard --port_file /var/lib/trainyard/ports >/var/lib/trainyard/log 2>&1 &
coordinator=$!
while [ ! -s /var/lib/trainyard/ports ]; do sleep 0.01; done
echo "coordinator serves after $((($(date +%s%N) - start) / 1000000)) ms"
start=$(date +%s%N)
trainyard-worker --state_dir /var/lib/trainyard-worker --cpu_slots 2 >/var/lib/trainyard-worker/log 2>&1 &
worker=$!
until trainyard workers 2>/dev/null | grep -qi ready; do sleep 0.02; done
echo "worker ready after $((($(date +%s%N) - start) / 1000000)) ms"
kill $worker && wait $worker
kill $coordinator && wait $coordinator
END
unshare --net --pid --fork --kill-child --mount sh -ec "
  ip link set lo up
  mount -t proc proc '$debian/proc'
  exec chroot --userspec=65532:65532 '$debian' /bin/bash -e /start.sh"
