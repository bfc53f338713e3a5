#!/usr/bin/env bash
# The root file system of an image: the programs of one role, the shared libraries they load, a shell, and nothing else.
#   deploy/docker/make_rootfs.sh coordinator|worker|client BIN OUT
# BIN is laid out like bazel-bin. Runs in the last step of the images' build stage, and as it is on any Debian 12 where the
# programs start. Needs no network and no right beyond writing OUT. Packages: binutils busybox-static python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  echo "usage: $0 coordinator|worker|client BIN OUT" >&2
  exit 2
}
[ $# = 3 ] || usage
role=$1
bin=$2
out=$3

case "$role" in
  coordinator) programs=(coordinator/trainyard-coordinator client/trainyard) ;;
  worker) programs=(worker/daemon/trainyard-worker worker/runner/trainyard-runner) ;;
  client) programs=(client/trainyard worker/tools/trainyard-local) ;;
  *) usage ;;
esac
[ ! -e "$out" ] || [ -z "$(ls -A "$out")" ] || { echo "$0: $out is not empty" >&2; exit 1; }

umask 022
mkdir -p "$out"/{bin,dev,etc/trainyard/tls,lib64,proc,run,shared/jobs,shared/data,sys,tmp,usr/local/bin,usr/share/trainyard,usr/share/doc}
chmod 1777 "$out/tmp"

# The user of all parts. State comes as a volume; these folders are where it is mounted.
cat >"$out/etc/passwd" <<'END'
root:x:0:0:root:/:/bin/sh
trainyard:x:65532:65532:Trainyard:/tmp:/bin/sh
END
cat >"$out/etc/group" <<'END'
root:x:0:
trainyard:x:65532:
END
echo "hosts: files dns" >"$out/etc/nsswitch.conf"
touch "$out/etc/hosts" "$out/etc/resolv.conf" "$out/etc/hostname"   # where runtimes mount theirs
# NVIDIA's container toolkit asks debian_version for where libraries are.
cp -L /etc/debian_version /etc/os-release "$out/etc/"
for folder in var/lib/trainyard var/lib/trainyard-worker; do
  mkdir -p "$out/$folder"
  # Only root can give files away; a build stage is root's.
  [ "$(id -u)" != 0 ] || chown 65532:65532 "$out/$folder"
done

for program in "${programs[@]}"; do
  [ -x "$bin/$program" ] || { echo "$0: $bin/$program is missing; build it first" >&2; exit 1; }
  strip -o "$out/usr/local/bin/$(basename "$program")" "$bin/$program"
  chmod 0755 "$out/usr/local/bin/$(basename "$program")"
done

# The preStop hook is a line of shell, and the GPU workers' first step a chown.
cp "$(command -v busybox)" "$out/bin/busybox"
for applet in sh sleep kill chown cat ls; do ln -s busybox "$out/bin/$applet"; done

# Libraries under the paths the loader asks for. What a library opens by itself at run time ldd does not know; those of CUDA
# are named by TRAINYARD_EXTRA_LIBRARIES (Dockerfile.cuda).
files=()
while read -r library; do
  mkdir -p "$out$(dirname "$library")"
  cp -L "$library" "$out$library"
  files+=("$library")
done < <(
  {
    for program in "${programs[@]}"; do
      if ldd "$bin/$program" | grep 'not found' >&2; then
        echo "$0: $program lacks these libraries" >&2
        exit 1
      fi
      ldd "$bin/$program"
    done
    for library in ${TRAINYARD_EXTRA_LIBRARIES:-}; do
      echo "x => $library"
      ldd "$library"
    done
  } | sed -nE 's/^.*=> (\/[^ ]+).*$/\1/p; s/^\s*(\/[^ ]*ld-linux[^ ]*) .*$/\1/p' | sort -u
)
[ ${#files[@]} -gt 0 ] || { echo "$0: found no libraries" >&2; exit 1; }
ldconfig -r "$out" 2>/dev/null || true   # only speeds the search up

"$here/sbom.py" --root "$out" --role "$role" --output "$out/usr/share/trainyard/sbom.cdx.json" \
  busybox-static:"$(command -v busybox)" "${files[@]}"
