"""A headless Chromium, driven through the DevTools protocol over a pipe: no driver program and no Python package."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time


class Timeout(Exception):
    pass


class Certificates:
    """What a user has imported into the browser: a CA to trust and, if given, a .p12 file. Which certificate a site is shown
    is asked in a window, which nobody could answer here, so the profile says that `origin` gets the one that fits."""

    def __init__(self, ca, p12=None, password="", origin=None):
        self.ca, self.p12, self.password, self.origin = ca, p12, password, origin

    def put_into(self, home):
        """Into the home and profile folder of a browser that has not been started."""
        store = os.path.join(home, ".pki", "nssdb")
        os.makedirs(store)
        for command in (["certutil", "-N", "-d", "sql:" + store, "--empty-password"],
                        ["certutil", "-A", "-d", "sql:" + store, "-t", "C,,", "-n", "ca", "-i", self.ca],
                        ["pk12util", "-d", "sql:" + store, "-i", self.p12, "-W", self.password] if self.p12 else None):
            if command:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if self.origin:
            chosen = {self.origin + ",*": {"setting": {"filters": [{}]}}}
            os.makedirs(os.path.join(home, "Default"))
            with open(os.path.join(home, "Default", "Preferences"), "w", encoding="utf-8") as file:
                json.dump({"profile": {"content_settings": {"exceptions": {"auto_select_certificate": chosen}}}}, file)


class Page:
    """One tab of a browser of its own, whose home is a temporary folder. Collects what the check is about: messages,
    failures, addresses asked for."""

    def __init__(self, width=1280, height=900, dark=False, phone=False, certificates=None):
        self.profile = tempfile.mkdtemp(prefix="trainyard-chromium-")
        if certificates:
            certificates.put_into(self.profile)
        to_browser, self.to = os.pipe()
        self.back, from_browser = os.pipe()
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
                   "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--user-data-dir=" + self.profile,
                   "--remote-debugging-pipe", "about:blank"]

        def wire():   # the protocol's descriptors are 3 and 4
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)
            os.setsid()

        self.process = subprocess.Popen(command, preexec_fn=wire, close_fds=False, env=dict(os.environ, HOME=self.profile),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.input = b""
        self.last = 0
        self.session = None
        self.errors, self.addresses, self.loads = [], [], 0
        self.forgives_network = False   # while the server is down on purpose
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.look(width, height, dark, phone)

    def look(self, width, height, dark, phone):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
                  mobile=phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    # ---- the protocol ----

    def receive(self, seconds):
        """The next message, or None."""
        end = time.monotonic() + seconds
        while b"\0" not in self.input:
            ready, _, _ = select.select([self.back], [], [], max(0, end - time.monotonic()))
            if not ready:
                return None
            data = os.read(self.back, 1 << 20)
            if not data:
                raise Timeout("chromium ended")
            self.input += data
        message, self.input = self.input.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.last += 1
        mine = self.last
        message = {"id": mine, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answer = self.receive(end - time.monotonic())
            if answer is None:
                break
            if answer.get("id") == mine:
                if "error" in answer:
                    raise RuntimeError("%s: %s" % (method, answer["error"]))
                return answer["result"]
            self.take(answer)
        raise Timeout(method + " was not answered within 60 s")

    def take(self, event):
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append("exception: %s" % details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.errors.append("console: %s" % [one.get("value", one.get("description")) for one in about["args"]])
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            if not (self.forgives_network and about["entry"]["source"] == "network"):
                self.errors.append("log: %s %s" % (about["entry"]["text"], about["entry"].get("url", "")))
        elif method == "Network.requestWillBeSent":
            self.addresses.append(about["request"]["url"])
        elif method == "Page.frameNavigated":
            self.loads += 1

    def pump(self, seconds):
        """Takes in what the browser tells for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            event = self.receive(end - time.monotonic())
            if event is not None:
                self.take(event)

    # ---- for tests ----

    # Notes in the page when a first row of data appears, whatever view it is.
    FIRST_DATA = """
      window.firstData = null;
      new MutationObserver(() => {
        if (window.firstData === null && document.querySelector('tbody tr')) window.firstData = performance.now();
      }).observe(document, {childList: true, subtree: true});
    """
    # Notes when the row of each job appears in a list.
    NOTE_ROWS = """
      window.seen = {}; new MutationObserver(() => {
        for (const link of document.querySelectorAll('tbody .job-name')) window.seen[link.textContent] ||= Date.now();
      }).observe(document.querySelector('main'), {childList: true, subtree: true});
      1
    """

    def note_first_data(self):
        self.call("Page.addScriptToEvaluateOnNewDocument", source=self.FIRST_DATA)

    def delay_of_row(self, name, uid):
        """Milliseconds from a job's submit to its row. The clocks are of one machine: the page's and the coordinator's."""
        self.wait("window.seen['%s']" % name, 10)
        submitted = self.run("fetch('/api/jobs/%s').then(a => a.json()).then(a => Date.parse(a.job.submitTime))" % uid)
        return self.run("window.seen['%s']" % name) - submitted

    def open(self, url, ready, seconds=30):
        """A fresh load of the page, until `ready` holds in it."""
        self.go("about:blank")
        self.go(url)
        self.wait(ready, seconds)
        self.pump(0.3)

    def go(self, url):
        """The browser's error, or None if something came."""
        return self.call("Page.navigate", url=url).get("errorText")

    def run(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError("%s: %s" % (expression, answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, expression, seconds=30, what=None):
        """Until the expression is true in the page."""
        end = time.monotonic() + seconds
        while True:
            # What is not there yet is not true yet.
            if self.run("(() => { try { return Boolean(%s) } catch (error) { return false } })()" % expression):
                return
            if time.monotonic() > end:
                raise Timeout("not within %d s: %s; the page says: %s" % (
                    seconds, what or expression, self.run("document.body.innerText")[:600]))
            self.pump(0.05)

    def picture(self, path, whole=True):
        metrics = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": metrics["width"], "height": min(metrics["height"], 4000), "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        data = self.call("Page.captureScreenshot", format="png", **options)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        shutil.rmtree(self.profile, ignore_errors=True)
