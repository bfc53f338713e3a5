"""Becomes the process of one container: run as root in namespaces of its own by run_as_deployed.py, with a description as
JSON in argv[1]. Sets up what a runtime would (read-only root, mounts, user, no new privileges) and then is the program."""
import ctypes
import json
import os
import subprocess
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
MS_REMOUNT, MS_BIND, MS_RDONLY, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 32, 4096, 1, 16384, 1 << 18, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0, data=None):
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), "mount %s on %s: %s" % (source, target, os.strerror(ctypes.get_errno())))


def bind(source, target, read_only):
    mount(source, target, None, MS_BIND | MS_REC)
    mount(None, target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | (MS_RDONLY if read_only else 0))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        pod = json.load(file)
    root = pod["root"]
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # The image's root under a tmpfs for the mount points that the image does not have, as a runtime makes them.
    mount(root, root, None, MS_BIND | MS_REC)
    for place in pod["mounts"]:
        inside = root + place["path"]
        if not os.path.isdir(inside):
            raise SystemExit("%s: the image has no folder %s" % (pod["name"], place["path"]))
    mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", root + "/dev", "tmpfs", MS_NOSUID, "mode=755")
    for device in ("null", "zero", "random", "urandom"):
        open(root + "/dev/" + device, "w").close()
        mount("/dev/" + device, root + "/dev/" + device, None, MS_BIND)
    os.mkdir(root + "/dev/shm", 0o1777)
    mount("shm", root + "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m")
    for place in pod["mounts"]:
        if place.get("tmpfs"):
            mount("tmpfs", root + place["path"], "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777," + place["tmpfs"])
        else:
            bind(place["source"], root + place["path"], place["read_only"])
    for name in ("hosts", "resolv.conf"):
        bind(os.path.join(pod["names"], name), root + "/etc/" + name, True)
    if pod["read_only_root"]:
        mount(None, root, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)
    libc.sethostname(pod["name"].encode(), len(pod["name"]))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.chroot(root)
    os.chdir("/")
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)   # fails beyond the last one there is
    os.setgroups([pod["fs_group"]] if pod["fs_group"] else [])
    os.setgid(pod["group"])
    os.setuid(pod["user"])
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    os.execve(pod["command"][0], pod["command"], pod["environment"])


if __name__ == "__main__":
    main()
