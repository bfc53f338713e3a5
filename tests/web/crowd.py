"""The web view of a large cluster: `count` workers without processes (tests/support/fake_workers) and as many jobs that run
on them, each of which reports a step a second. How long the page takes to load and to follow, what the browser and the
coordinator do for it. A part of check_web.py."""
import os
import statistics
import subprocess
import time
import urllib.request

from devtools import Page
from local_cluster import LocalCoordinator, job_spec

WATCHED_SECONDS = 6    # a view of workers looks every 3
# Sums up how long the page's thread was busy in pieces of more than 50 ms, and the longest of them.
LONG_TASKS = """
  window.longest = 0; window.blocked = 0;
  if (!window.observer) {
    window.observer = new PerformanceObserver(list => {
      for (const task of list.getEntries()) { window.longest = Math.max(window.longest, task.duration); window.blocked += task.duration; }
    });
    window.observer.observe({type: 'longtask'});
  }
  1
"""


class Crowd:
    """The workers; `with` ends them."""

    def __init__(self, binaries, address, count):
        self.process = subprocess.Popen([os.path.join(binaries, "tests/support/fake_workers"), "--coordinator", address,
                                         "--count", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()   # when all are registered

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def median(values):
    return round(statistics.median(values), 1)


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(binaries, folder, out, count, figures):
    """What is wrong, as lines of text; what was measured goes to `figures`."""
    found = []
    os.makedirs(folder)

    def figure(name, value):
        figures["with %d workers and jobs: %s" % (count, name)] = value

    def share_of_core(wait):
        before, began = cpu_seconds(coordinator.process.pid), time.monotonic()
        wait(WATCHED_SECONDS)
        return round((cpu_seconds(coordinator.process.pid) - before) / (time.monotonic() - began), 2)

    with LocalCoordinator(binaries, folder) as coordinator, Crowd(binaries, coordinator.address, count):
        uids = []
        for begin in range(0, count, 250):
            specs = [job_spec("many-%04d" % i, 1000000) for i in range(begin, min(begin + 250, count))]
            uids += coordinator.submit("---\n".join(specs)).split()
        wait_until_running(coordinator, count)
        for path in ("/api/overview", "/api/workers?limit=100", "/api/jobs?page_size=100"):
            figure("GET %s, ms (median of 10)" % path, median([fetch_ms(coordinator.web + path) for _ in range(10)]))
        figure("coordinator without pages, cores", share_of_core(time.sleep))
        page = Page()
        page.call("Network.disable")   # or each event goes through the pipe to here too
        page.note_first_data()
        try:
            check_jobs(coordinator, page, figure)
            figure("coordinator with a page of jobs, cores", share_of_core(page.pump))
            check_workers(coordinator, page, uids, count, figure, found)
            page.picture(os.path.join(out, "crowd-light.png"), whole=False)
            found.extend("many workers and jobs: " + error for error in page.errors)
        finally:
            page.close()
    return found


def fetch_ms(url):
    began = time.monotonic()
    urllib.request.urlopen(url, timeout=20).read()
    return (time.monotonic() - began) * 1000


def wait_until_running(coordinator, count):
    end = time.monotonic() + 120
    while True:
        with urllib.request.urlopen(coordinator.web + "/api/jobs?page_size=1&filter=state%21%3DRUNNING", timeout=20) as answer:
            if b"uid" not in answer.read():
                return
        if time.monotonic() > end:
            raise SystemExit("%d jobs did not all run within 120 s" % count)
        time.sleep(0.2)


def loads(page, url):
    times = []
    for _ in range(5):
        page.open(url, "window.firstData !== null")
        times.append(page.run("window.firstData"))
    return median(times)


def watch(page, what, figure):
    page.run(LONG_TASKS)
    page.pump(WATCHED_SECONDS)
    longest, blocked = page.run("[window.longest, window.blocked]")
    figure("%s followed for %d s: longest block of the page's thread, ms" % (what, WATCHED_SECONDS), round(longest))
    figure("%s followed for %d s: share of time in blocks over 50 ms" % (what, WATCHED_SECONDS),
           round(blocked / 1000 / WATCHED_SECONDS, 3))


def check_jobs(coordinator, page, figure):
    figure("navigation to the first job, ms (median of 5)", loads(page, coordinator.web + "/"))
    page.wait("document.getElementById('link').dataset.state === 'live'")
    page.run(page.NOTE_ROWS)
    delays = []
    for i in range(15):
        name = "appears-%d" % i
        uid = coordinator.submit(job_spec(name, 5, more="suspend: true\n"))
        delays.append(page.delay_of_row(name, uid))
    figure("job submitted to row in the page, ms (median, largest of 15)", [median(delays), max(delays)])
    watch(page, "100 rows of jobs", figure)
    page.run("const input = document.querySelector('input[type=search]'); input.value = 'many-0001'; input.dispatchEvent(new Event('input')); 1")
    page.wait("[...document.querySelectorAll('tbody tr:not([hidden])')].length === 1", 30, "the oldest of many is found")
    page.run("input.value = ''; input.dispatchEvent(new Event('input')); 1")
    watch(page, "all rows of jobs", figure)


def check_workers(coordinator, page, uids, count, figure, found):
    figure("navigation to the first worker, ms (median of 5)", loads(page, coordinator.web + "/#/workers"))
    rows = "document.querySelectorAll('tbody tr').length"
    watch(page, "100 rows of workers", figure)
    began = time.monotonic()
    while page.run(rows) < count:
        page.run("document.querySelector('.more button').click(); 1")
        page.wait("%s > %d" % (rows, page.run(rows)), 30, "more workers")
    figure("all workers shown by clicks, ms", round((time.monotonic() - began) * 1000))
    watch(page, "all rows of workers", figure)
    delays = []
    for uid in uids[:5]:
        slot = "document.querySelector('a.slot[href=\"#/job/%s\"]')" % uid
        page.wait(slot, 10, "the slot of a running job")
        coordinator.client("cancel", uid)
        began = time.monotonic()
        page.wait("!" + slot, 30, "the slot of a cancelled job is free")
        delays.append(round((time.monotonic() - began) * 1000))
    figure("job cancelled to its slot free in the page of all workers, ms (median, largest of 5)", [median(delays), max(delays)])
    if page.run(rows) != count:
        found.append("many workers: %d rows of %d workers" % (page.run(rows), count))
