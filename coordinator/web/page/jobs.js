// The table of jobs.
import {Alarm} from "./alarm.js";
import {get} from "./api.js";
import {empty, fill, make, meter, setText} from "./dom.js";
import {TERMINAL, WAITING, count, duration, number, secondsBetween, short, when, words} from "./format.js";

const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];
const SHOWS = [
  ["all", "All", []],
  ["running", "Running", ["QUEUED", "SUSPENDED", "RECOVERING", ...ENDED]],
  ["waiting", "Waiting", ["ADMITTED", "RUNNING", "STOPPING", ...ENDED]],
  ["ended", "Ended", ["QUEUED", "SUSPENDED", "RECOVERING", "ADMITTED", "RUNNING", "STOPPING"]],
  ["failed", "Failed", ["QUEUED", "SUSPENDED", "RECOVERING", "ADMITTED", "RUNNING", "STOPPING", "SUCCEEDED", "CANCELLED"]],
];
const PAGE = 100;
const RELIST_MS = 60000;   // deletions are no events
const WHYS = 8;            // jobs at a time that are asked why they wait

export function pill(state) {
  return make("span", {class: "pill", "data-state": short(state)}, words(state));
}

export function jobLink(job) {
  return make("a", {href: "#/job/" + job.uid, class: "job-name"}, job.name);
}

// What the job says of itself in numbers: newest progress, or the result of one that has ended.
export function values(job) {
  return Object.assign({}, job.result && job.result.values, job.progress && job.progress.values);
}

export function lossOf(job) {
  const v = values(job);
  for (const name of ["loss", "final_loss", "evaluation_loss", "fitness", "kl", "loss_g"]) if (v[name] !== undefined) return v[name];
  return undefined;
}

export function slotsOf(job) {
  const world = job.spec && job.spec.world;
  return world ? world.max || world.min || 1 : 1;
}

export function steps(job) {
  const progress = job.progress || {};
  return {step: Number(progress.step || job.committedStep || 0), total: Number(progress.totalSteps || 0)};
}

function progressCell(job) {
  const {step, total} = steps(job);
  if (job.state === "JOB_STATE_SUCCEEDED") return [meter(1, "done", "done")];
  const newest = job.generations && job.generations[job.generations.length - 1];
  if (newest && !TERMINAL.has(job.state)) {
    const done = (newest.succeededCount || 0) + (newest.failedCount || 0);
    return [meter(done / newest.totalCount, "trials of the generation", ""),
      make("span", {class: "sub"}, "generation " + newest.number + " · " + done + "/" + newest.totalCount)];
  }
  if (!total) return [make("span", {class: "sub"}, step ? "step " + count(step) : "–")];
  const text = count(step) + " / " + count(total);
  return [meter(step / total, "step " + step + " of " + total, TERMINAL.has(job.state) ? "off" : ""), make("span", {class: "sub"}, text)];
}

class Row {
  constructor(job) {
    this.cells = {};
    this.element = make("tr", {"data-uid": job.uid});
    for (const [key, label, kind] of [["state", "State", ""], ["name", "Job", ""], ["progress", "Progress", "wide"],
      ["loss", "Loss", "num"], ["speed", "Per second", "num"], ["slots", "Slots", "num"], ["time", "Time", "num"]]) {
      this.cells[key] = make("td", {"data-label": label, class: kind});
      this.element.append(this.cells[key]);
    }
    this.take(job);
  }

  take(job) {
    this.job = job;
    fill(this.cells.state, pill(job.state));
    const why = job.pending ? job.pending.message : job.state === "JOB_STATE_FAILED" && job.exit ? job.exit.message || job.exit.reason : "";
    fill(this.cells.name, jobLink(job), make("span", {class: "sub"}, [job.kind, job.namespace, job.queue].filter((x, i) => x && (i === 0 || x !== "default")).join(" · ")),
      why ? make("span", {class: "sub why"}, why) : null);
    this.takeProgress();
    setText(this.cells.slots, String(slotsOf(job)));
    this.cells.time.title = "Submitted " + when(job.submitTime) + (job.startTime ? ", started " + when(job.startTime) : "") +
      (job.endTime ? ", ended " + when(job.endTime) : "");
    this.tick();
  }

  takeProgress() {
    const v = values(this.job);
    fill(this.cells.progress, progressCell(this.job));
    setText(this.cells.loss, number(lossOf(this.job)));
    const speed = v.tokens_per_second !== undefined ? count(v.tokens_per_second) + " tok"
      : v.images_per_second !== undefined ? count(v.images_per_second) + " img" : "–";
    setText(this.cells.speed, TERMINAL.has(this.job.state) ? "–" : speed);
    for (const key of ["progress", "loss", "speed"]) this.cells[key].classList.toggle("none", this.cells[key].textContent === "–");
  }

  tick() {
    const job = this.job;
    const begin = job.startTime || job.submitTime;
    setText(this.cells.time, duration(secondsBetween(begin, job.endTime)));
  }
}

// Revisions are etags; a page of the list may be newer than an event.
const isOlder = (a, b) => Number(a.etag || 0) < Number(b.etag || 0);

export class JobsView {
  constructor(main, parameters) {
    this.name = "jobs";
    this.show = SHOWS.find(([id]) => id === parameters.get("show")) || SHOWS[0];
    this.rows = new Map();
    this.search = "";
    this.unasked = new Set();
    this.why = new Alarm(() => this.askWhy(), 400);
    document.title = "Jobs · Trainyard";
    this.tabs = make("div", {class: "segments", role: "group", "aria-label": "Which jobs"},
      SHOWS.map(([id, label]) => make("a", {href: id === "all" ? "#/jobs" : "#/jobs?show=" + id, "aria-current": id === this.show[0] && "true"}, label)));
    this.input = make("input", {type: "search", placeholder: "Find by name, kind, queue", "aria-label": "Find jobs",
      oninput: () => this.find()});
    this.note = make("p", {class: "note", role: "status"});
    this.body = make("tbody", {});
    this.table = make("table", {class: "cards", hidden: true},
      make("thead", {}, make("tr", {}, ["State", "Job", "Progress", "Loss", "Per second", "Slots", "Time"].map(
        (label, i) => make("th", {scope: "col", class: i >= 3 ? "num" : i === 2 ? "wide" : ""}, label)))), this.body);
    this.more = make("button", {type: "button", hidden: true, onclick: () => this.loadMore()}, "Show more");
    this.none = make("div", {});
    fill(main, make("div", {class: "toolbar"}, make("h1", {}, "Jobs"), this.tabs, this.input), this.none, this.table,
      make("div", {class: "more"}, this.more, this.note));
    fill(this.none, make("p", {class: "loading"}, "Loading jobs"));
  }

  parameters(token) {
    return {filter: this.show[2].map(state => "state!=" + state).join(" AND "), page_size: PAGE, page_token: token};
  }

  async load() {
    const list = await get("/api/jobs", this.parameters(""));
    const wanted = this.rows.size;
    this.rows.clear();
    this.body.replaceChildren();
    this.take(list);
    while (this.token && this.rows.size < wanted) this.take(await get("/api/jobs", this.parameters(this.token)));
    this.listedAt = Date.now();
    this.find();
    return list.revision || "0";
  }

  take(list) {
    this.token = list.nextPageToken || "";
    for (const job of list.jobs || []) {
      if (this.rows.has(job.uid)) continue;
      const row = new Row(job);
      this.rows.set(job.uid, row);
      this.body.append(row.element);
    }
  }

  async loadMore() {
    this.more.disabled = true;
    try {
      this.take(await get("/api/jobs", this.parameters(this.token)));
      this.find();
    } catch (error) {
      setText(this.note, error.message);
    }
    this.more.disabled = false;
  }

  // Searching needs all names, so the rest of the list is fetched, up to a bound.
  async find() {
    this.search = this.input.value.trim().toLowerCase();
    this.settle();
    while (this.search && this.token && this.rows.size < 2000 && !this.more.disabled) await this.loadMore();
  }

  settle() {
    let shown = 0;
    for (const row of this.rows.values()) {
      const {name, kind, queue, namespace, uid} = row.job;
      const hit = !this.search || [name, kind, queue, namespace, uid].some(text => String(text).toLowerCase().includes(this.search));
      row.element.hidden = !hit;
      if (hit) ++shown;
    }
    this.table.hidden = shown === 0;
    this.more.hidden = !this.token;
    setText(this.note, this.rows.size > PAGE || this.token || this.search ? shown + (this.token ? " of more jobs" : shown === 1 ? " job" : " jobs") : "");
    if (shown) this.none.replaceChildren();
    else if (this.search) fill(this.none, empty("No job matches", "Nothing listed here contains “" + this.search + "”."));
    else if (this.show[0] !== "all") fill(this.none, empty("No jobs here", "No job is in this state now."));
    else {
      fill(this.none, empty("No jobs yet", "Submit one and it appears here by itself:"),
        make("pre", {class: "hint"}, "trainyard submit -f deploy/examples/quickstart.yaml"));
    }
  }

  belongs(job) {
    return !this.show[2].includes(short(job.state)) && !job.parentUid;
  }

  onJob(job) {
    const row = this.rows.get(job.uid);
    if (row) {
      if (isOlder(job, row.job)) return;
      if (!this.belongs(job)) {
        row.element.remove();
        this.rows.delete(job.uid);
      } else {
        // Events know neither progress nor why a job waits; a state that goes on keeps what was known.
        if (job.state === row.job.state) job.pending = job.pending || row.job.pending;
        if (!TERMINAL.has(job.state) || !job.result) job.progress = job.progress || row.job.progress;
        job.generations = job.generations || row.job.generations;
        row.take(job);
      }
    } else if (this.belongs(job)) {
      const fresh = new Row(job);
      this.rows.set(job.uid, fresh);
      let before = null;
      for (const element of this.body.children) {
        const other = this.rows.get(element.dataset.uid);
        if (other && other.job.submitTime <= job.submitTime) {
          before = element;
          break;
        }
      }
      this.body.insertBefore(fresh.element, before);
    }
    if (WAITING.has(job.state)) {
      this.unasked.add(job.uid);
      this.why.within(400);
    }
    this.settle();
  }

  // Why a job waits is decided when it is asked for, so it comes with no event. Of very many the newest are asked for; the
  // others show it when the list is fetched again.
  async askWhy() {
    const uids = [...this.unasked].slice(-WHYS);
    this.unasked.clear();
    for (const uid of uids) {
      try {
        const {job} = await get("/api/jobs/" + encodeURIComponent(uid));
        const row = this.rows.get(uid);
        if (row && !isOlder(job, row.job)) row.take(job);
      } catch (error) {
        // The row stays as the event left it.
      }
    }
  }

  onProgress(event) {
    const row = this.rows.get(event.jobUid);
    if (!row) return;
    row.job.progress = event.progress;
    row.takeProgress();
  }

  tick() {
    for (const row of this.rows.values()) if (!TERMINAL.has(row.job.state)) row.tick();
    if (this.listedAt && Date.now() - this.listedAt > RELIST_MS) {
      this.listedAt = Date.now();
      this.load().catch(() => {});
    }
  }

  fail(error) {
    if (this.rows.size) return;
    fill(this.none, error ? empty("The list cannot be shown", error.message) : empty("The coordinator does not answer", "This page tries again by itself."));
  }

  leave() {
    this.why.stop();
  }
}
