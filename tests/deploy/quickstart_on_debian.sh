#!/usr/bin/env bash
# The README's first command on a bare Debian 12: makes one with mmdebstrap, lays the checkout's last commit in it, runs
# deploy/local/quickstart.sh there by chroot, and says what each part took.
#   tests/deploy/quickstart_on_debian.sh [DIR]    # needs root, git, mmdebstrap and a Debian mirror; what is in DIR/debian is replaced, and kept
# Not part of the gate: it fetches some 300 packages and builds everything cold.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-$(mktemp -d)}
[ $# -ge 1 ] || trap 'rm -rf "$work"' EXIT
debian=$work/debian
mkdir -p "$work"

# Prints the lines of standard input and, when a part of the quickstart ends, what it took.
timed() {
  local line part="" began=$SECONDS start=$SECONDS
  local -a parts=()
  while IFS= read -r line; do
    printf '%s\n' "$line"
    [[ $line =~ ([1-5]/5\ [A-Za-z]*)|(Result) ]] || continue
    [ -z "$part" ] || parts+=("$(printf '%-16s %5d s' "$part" $((SECONDS - began)))")
    part=${BASH_REMATCH[0]} began=$SECONDS
  done
  parts+=("$(printf '%-16s %5d s' "$part" $((SECONDS - began)))")
  printf '\n'
  printf '%s\n' "${parts[@]}"
  printf '%-16s %5d s\n' "the quickstart" $((SECONDS - start))
}

began=$SECONDS
rm -rf "$debian"
mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$debian"
cp -L /etc/resolv.conf "$debian/etc/"
echo "a bare Debian 12: $((SECONDS - began)) s, $(du -sm "$debian" | cut -f1) MiB"
mkdir "$debian/trainyard"
git -C "$root" archive HEAD | tar xf - -C "$debian/trainyard"

# Processes of their own, so that the cluster ends with the script.
unshare --pid --fork --kill-child --mount sh -ec "
  mount -t proc proc '$debian/proc'
  mount --bind /dev '$debian/dev'
  exec chroot '$debian' /usr/bin/env HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin /trainyard/deploy/local/quickstart.sh" 2>&1 |
  timed
echo "then: $(du -sm "$debian" | cut -f1) MiB"
