#!/usr/bin/python3
"""The web view in headless Chromium against a live small cluster that trains: pages in light and dark and at the width of
a phone, live updates without a reload, what is said when the coordinator is gone; no error in the console, no request to
another host. Before that, mutual TLS (mutual_tls.py); after it, 1,000 workers and 1,000 jobs (crowd.py). Screenshots and
figures are written to --out.

  tests/web/check_web.py --bin DIR [--out DIR]     # --bin is laid out like bazel-bin
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import crowd
import mutual_tls
from devtools import Page
from local_cluster import CODEC, QUEST, ROOT, LocalCluster, job_spec

HOSTILE = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
STUDY = """
name: law
world: {min: 1, threads_per_rank: 1}
seed: 1
study:
  sizes: [{name: small}, {name: middle, num_hidden_layers: 2}, {name: large, hidden_size: 64, intermediate_size: 160, num_hidden_layers: 1, num_attention_heads: 2}]
  tokens_per_parameter: [0.5, 1.5, 4.5]
  recipes: [{name: baseline}]
  learning_rate: {rule: inverse_width}
  fit: {bootstrap: 0}
model:
  shape: {vocab_size: 512, hidden_size: 32, intermediate_size: 96, num_hidden_layers: 1, num_attention_heads: 1}
data: {path: data, sequence_length: 64}
training:
  micro_batch: 4
  optimizer: {adamw: {learning_rate: 1.0e-2}}
  schedule: {shape: cosine, warmup_steps: 2}
"""
found = []


def need(condition, text):
    if not condition:
        found.append(text)


def job(name, *lines, note="", **options):
    """A job with a note, which the page must show as text whatever it is."""
    return job_spec(name, more="annotations: {note: %s}\n%s" % (json.dumps(note), "".join(lines)), **options)


def suspended(name, note=""):
    return job(name, "suspend: true\n", note=note, steps=5)


def check_names(page, where):
    """Every control has a name, every picture a description, and nothing is wider than the screen."""
    bare = page.run("""[...document.querySelectorAll('a, button, input, select, [role=img]')].filter(e => e.offsetParent &&
        !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels && e.labels.length || e.getAttribute('placeholder'))
      ).map(e => e.outerHTML.slice(0, 120))""")
    need(not bare, "%s: controls without a name: %s" % (where, bare))
    width = page.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    need(width[0] <= width[1], "%s: %d pixels wide on a screen of %d" % (where, *width))
    low = page.run(CONTRAST)
    need(not low, "%s: too little contrast: %s" % (where, low))


# Text on the nearest opaque background behind it, by the formula of WCAG 2; 4.5 to 1 is wanted.
CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const low = new Set();
  for (const e of document.querySelectorAll('main *, header *, .tally *')) {
    if (!e.offsetParent || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    let behind = e, ground = null;
    while (behind && !ground) {
      const c = parse(getComputedStyle(behind).backgroundColor);
      if (c.length === 3 || c[3] === 1) ground = c.slice(0, 3);
      behind = behind.parentElement;
    }
    if (!ground) continue;
    const style = getComputedStyle(e);
    if (parseFloat(style.fontSize) === 0) continue;
    const a = light(parse(style.color).slice(0, 3)), b = light(ground);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.add(ratio.toFixed(2) + ' ' + e.className + ' ' + e.textContent.slice(0, 30));
  }
  return [...low].slice(0, 5);
})()"""


def check_pages(cluster, uids, out):
    views = {
        "jobs": ("#/jobs", "document.querySelectorAll('tbody tr').length >= 4"),
        "queue": ("#/queue", "document.querySelector('.reason')"),
        "workers": ("#/workers", "document.querySelectorAll('.slot[data-state=BUSY]').length >= 2"),
        "job": ("#/job/" + uids["pair"], "document.querySelectorAll('.chart:not([hidden]) path.line').length >= 4 && "
                "document.querySelector('.log').textContent.length > 0"),
        "search": ("#/job/" + uids["law"], "document.querySelector('.stack')"),
        "missing": ("#/job/none", "document.querySelector('.empty')"),
    }
    for name, look in (("light", {}), ("dark", {"dark": True}), ("phone", {"width": 390, "height": 844, "phone": True}),
                       ("phone-dark", {"width": 390, "height": 844, "phone": True, "dark": True})):
        page = Page(**look)
        try:
            for view, (path, ready) in views.items():
                page.forgives_network = view == "missing"   # a 404 is told in the log of any browser
                page.open(cluster.web + "/" + path, ready)
                page.wait("document.getElementById('link').dataset.state === 'live'")
                check_names(page, "%s, %s" % (view, name))
                page.picture(os.path.join(out, "%s-%s.png" % (view, name)))
            need(page.run("document.title") != "hit" and page.run("!document.querySelector('main script, main img')"),
                 "%s: markup of a job's user got into the page" % name)
            collect(page, cluster, name)
        finally:
            page.close()


def collect(page, cluster, where):
    for error in page.errors:
        found.append("%s: %s" % (where, error))
    for address in page.addresses:
        need(address.startswith((cluster.web + "/", "about:", "data:")), "%s: asked for %s" % (where, address))


def check_live(cluster, uids, figures, out):
    page = Page()
    page.note_first_data()
    try:
        # Load times: nothing cached, then as a user who comes back.
        times = {"cold": [], "warm": []}
        for kind in ("cold", "warm"):
            page.call("Network.setCacheDisabled", cacheDisabled=kind == "cold")
            for _ in range(5):
                page.open(cluster.web + "/", "window.firstData !== null")
                times[kind].append(page.run("window.firstData"))
        sizes = page.run("performance.getEntriesByType('resource').filter(e => !e.name.includes('/api/')).length")
        figures["files of the page"] = sizes + 1
        for kind, seen in times.items():
            figures["navigation to first data, %s, ms (median of %d)" % (kind, len(seen))] = round(statistics.median(seen))

        # Jobs appear by themselves.
        page.wait("document.getElementById('link').dataset.state === 'live'")
        page.run(page.NOTE_ROWS)
        loads = page.loads
        delays = []
        for i in range(15):
            name = "appears-%d" % i
            uid = cluster.submit(suspended(name, HOSTILE))
            delays.append(page.delay_of_row(name, uid))
        figures["job submitted to row in the page, ms (median, largest of %d)" % len(delays)] = [
            round(statistics.median(delays)), round(max(delays))]
        need(page.loads == loads, "the page was loaded again to show new jobs")
        cluster.client("cancel", uids["waits"])
        page.wait("[...document.querySelectorAll('tbody tr')].find(r => r.textContent.includes('waits')).textContent.includes('Cancelled')", 10)

        # Numbers of a running job move, and its curves grow.
        page.open(cluster.web + "/#/job/" + uids["pair"], "document.querySelector('path.line')")
        loads = page.loads
        step = "document.querySelector('.job-bar .sub').textContent"
        before, path = page.run(step), page.run("document.querySelector('path.line').getAttribute('d')")
        page.wait("%s !== %s" % (step, json.dumps(before)), 20, "the step moves")
        page.wait("document.querySelector('path.line').getAttribute('d') !== %s" % json.dumps(path), 20, "the curve grows")
        log = page.run("document.querySelector('.log').textContent.length")
        need(log > 0, "no log is shown")
        # By keyboard: a value of the curve, a link from the top of the page.
        page.run("document.querySelector('svg.plot').focus(); 1")
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
        need("step" in page.run("document.querySelector('.readout').textContent"), "arrow keys read no value of a curve")
        need(page.loads == loads, "the page was loaded again to show progress")
        # An end is shown as it happens.
        page.open(cluster.web + "/#/job/" + uids["single"], "document.querySelector('.title .pill').textContent === 'Running'")
        loads = page.loads
        cluster.client("cancel", uids["single"])
        page.wait("document.querySelector('.title .pill').textContent === 'Cancelled'", 30, "the end is shown")
        need(page.loads == loads, "the page was loaded again to show the end")
        collect(page, cluster, "live")
    finally:
        page.close()


def check_lost(cluster, out):
    page = Page()
    try:
        page.open(cluster.web + "/", "document.querySelector('tbody tr')")
        page.wait("document.getElementById('link').dataset.state === 'live'")
        collect(page, cluster, "before the coordinator ended")
        page.errors.clear()
        page.forgives_network = True
        cluster.end_coordinator()
        page.wait("!document.getElementById('lost').hidden", 15, "the page says that the coordinator is gone")
        need(page.run("document.querySelectorAll('tbody tr').length") > 0, "what was known went with the coordinator")
        page.picture(os.path.join(out, "lost-light.png"), whole=False)
        cluster.start()
        page.wait("document.getElementById('link').dataset.state === 'live' && document.getElementById('lost').hidden", 30, "it comes back")
        name = "after-restart"
        cluster.submit(suspended(name))
        page.wait("document.querySelector('main').textContent.includes('%s')" % name, 10, "a new job after the restart")
        collect(page, cluster, "restart")
    finally:
        page.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "bazel-bin"))
    parser.add_argument("--out", default=os.path.join(ROOT, "bazel-testlogs", "web"))
    parser.add_argument("--many", type=int, default=1000, help="workers, and jobs, of the last part")
    arguments = parser.parse_args()
    binaries = os.path.abspath(arguments.bin)
    out = os.path.abspath(arguments.out)
    os.makedirs(out, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="trainyard-web-")
    cluster = LocalCluster(binaries, folder)
    figures = {}
    try:
        found.extend(mutual_tls.check(binaries, os.path.join(folder, "tls"), out))
        cluster.start()
        page = Page()
        try:
            page.open(cluster.web + "/", "document.querySelector('.empty')")
            page.picture(os.path.join(out, "empty-light.png"), whole=False)
            collect(page, cluster, "empty")
        finally:
            page.close()
        cluster.tokenize()
        specs = {"pair": job("pair", CODEC, note=HOSTILE, ranks=2, steps=100000),
                 "single": job("single", note=HOSTILE, kind="qat", training=QUEST, steps=100000),
                 "law": STUDY,
                 "waits": job("waits", note=HOSTILE, ranks=4, steps=100),
                 "fails": job("fails", "priority: 10\n", note=HOSTILE, data="no-such-data", steps=5)}
        uids = {name: cluster.submit(spec) for name, spec in specs.items()}
        total = sum(os.path.getsize(os.path.join(ROOT, "coordinator/web/page", name))
                    for name in os.listdir(os.path.join(ROOT, "coordinator/web/page")))
        figures["bytes of the page and its files"] = total
        time.sleep(8)   # curves need points
        check_pages(cluster, uids, out)
        check_live(cluster, uids, figures, out)
        check_lost(cluster, out)
        found.extend(crowd.check(binaries, os.path.join(folder, "crowd"), out, arguments.many, figures))
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    with open(os.path.join(out, "figures.json"), "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=1)
    for name, value in figures.items():
        print("  %s: %s" % (name, value))
    print("\n".join(found) or "the web view renders, follows and recovers; screenshots in " + out)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
