"""A slow network on one machine: a bridge, and one network namespace a host, its link shaped in both directions.

Needs root (CAP_NET_ADMIN), iproute2 and the kernel's tbf. All addresses are inside the namespaces; close() removes all.
"""
import json
import subprocess

SUBNET = "10.77.0"

# Token-bucket depth by rate: enough for one timer tick, small against a step (bytes).
BURSTS = {None: 0, 1000: 131072, 400: 65536, 200: 32768, 100: 16384, 50: 16384, 10: 16384}


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, text=True)


class Network:
    """Hosts 1 .. count; host k has the address SUBNET.k in the namespace <prefix>k."""

    def __init__(self, count, prefix="tyhost"):
        self.prefix = prefix
        self.count = count
        self.switch = prefix + "sw"
        there = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
        if self.switch in there:
            raise SystemExit(f"network namespace {self.switch} exists: another run goes on, or one was killed; then remove "
                             f"it and the hosts with: for n in $(ip netns list | grep -o '^{prefix}[a-z0-9]*'); do "
                             "ip netns del $n; done")
        try:
            run("ip", "netns", "add", self.switch)
            self._in_switch("ip", "link", "add", "br0", "type", "bridge")
            self._in_switch("ip", "link", "set", "br0", "up")
            for host in range(1, count + 1):
                self._add(host)
        except Exception:
            self.close()
            raise

    def _in_switch(self, *argv):
        run("ip", "netns", "exec", self.switch, *argv)

    def _add(self, host):
        name = self.namespace(host)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "e0", "netns", name, "type", "veth", "peer", "name", f"p{host}", "netns", self.switch)
        self.run_in(host, "ip", "addr", "add", f"{self.address(host)}/24", "dev", "e0")
        self.run_in(host, "ip", "link", "set", "e0", "up")
        self.run_in(host, "ip", "link", "set", "lo", "up")
        # An idle connection must not fall back to slow start at each step.
        self.run_in(host, "sysctl", "-qw", "net.ipv4.tcp_slow_start_after_idle=0")
        self._in_switch("ip", "link", "set", f"p{host}", "master", "br0", "up")

    def namespace(self, host):
        return f"{self.prefix}{host}"

    def address(self, host):
        return f"{SUBNET}.{host}"

    def enter(self, host):
        """The words to put before a command that runs on `host`."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def run_in(self, host, *argv):
        run(*self.enter(host), *argv)

    def shape(self, hosts, megabits):
        """Limits what each of `hosts` sends and receives to `megabits` per second; None: no limit."""
        for host in hosts:
            for enter, device in ((self.enter(host), "e0"), (["ip", "netns", "exec", self.switch], f"p{host}")):
                subprocess.run([*enter, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True)
                if megabits is None:
                    run(*enter, "tc", "qdisc", "add", "dev", device, "root", "pfifo", "limit", "10000")
                else:
                    run(*enter, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{megabits}mbit",
                        "burst", str(BURSTS[megabits]), "limit", "3mb")

    def bytes_sent(self, host):
        """Bytes that left `host` since its link was shaped, headers included, as the kernel's queue counted them."""
        out = subprocess.run([*self.enter(host), "tc", "-s", "-j", "qdisc", "show", "dev", "e0"], check=True,
                             capture_output=True, text=True).stdout
        return next(q["bytes"] for q in json.loads(out) if q.get("root"))

    def close(self):
        for host in [*(self.namespace(h) for h in range(1, self.count + 1)), self.switch]:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
