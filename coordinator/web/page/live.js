// One stream of events for the tab. States: "connecting", "live", "lost" (nobody answers; tried again for ever),
// "polling" (no stream to be had, so views ask again every few seconds).
//
// A browser has six connections to one server for all tabs, so a tab that nobody looks at gives its stream back.

const RETRY_MS = [500, 1000, 2000, 5000];
const POLL_MS = 5000;
const HIDDEN_MS = 30000;

export class Live {
  // onState(state), onReload(): everything is to be listed again, then `start` called anew; onJob(job), onProgress(event)
  constructor(handlers) {
    this.handlers = handlers;
    this.source = null;
    this.failures = 0;
    this.timer = null;
    this.hiddenTimer = null;
    this.state = "";
    document.addEventListener("visibilitychange", () => this.visibility());
  }

  setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.handlers.onState(state);
  }

  // Events of `job` (empty: all) after `revision`.
  start(job, revision) {
    this.close();
    this.job = job;
    this.revision = revision;
    const url = new URL("/api/events", location.origin);
    if (job) url.searchParams.set("job", job);
    url.searchParams.set("after", revision);
    const source = new EventSource(url);
    this.source = source;
    source.addEventListener("hello", () => {
      this.failures = 0;
      this.setState("live");
    });
    source.addEventListener("job", event => this.handlers.onJob(JSON.parse(event.data)));
    source.addEventListener("progress", event => JSON.parse(event.data).forEach(one => this.handlers.onProgress(one)));
    source.addEventListener("reload", () => this.again(0));
    source.onerror = () => this.again(RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
  }

  // The list is asked for first: it tells a server that is gone from one that has no stream left.
  again(delay) {
    this.close();
    this.timer = setTimeout(() => this.handlers.onReload(), delay);
  }

  lost() {
    this.setState("lost");
    this.again(RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
  }

  listed(job, revision) {
    // Lists come but streams do not: go on by asking.
    if (this.failures > 3 && this.state !== "live") {
      this.setState("polling");
      this.failures = 2;
      this.again(POLL_MS);
      return;
    }
    this.start(job, revision);
  }

  close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }

  visibility() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => {
        this.close();
        this.paused = true;
      }, HIDDEN_MS);
    } else if (this.paused) {
      this.paused = false;
      this.handlers.onReload();
    }
  }
}
