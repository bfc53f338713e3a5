// One job: what it does, why it waits or how it ended, its curves, compression, generations, attempts, logs and spec.
import {Alarm} from "./alarm.js";
import {get} from "./api.js";
import {Chart} from "./chart.js";
import {Compression, NAMES as IS_COMPRESSION} from "./compression.js";
import {empty, fill, make, meter, setText} from "./dom.js";
import {TERMINAL, WAITING, bytes, count, duration, number, secondsBetween, secondsSince, when, words} from "./format.js";
import {pill, slotsOf, values} from "./jobs.js";
import {Logs} from "./logs.js";
import {Search} from "./search.js";

const POINTS = 600;
const MORE_MS = 1000;    // between two looks for new points
const KEPT = 3000;       // points of a curve; then the whole is asked for again, thinner
const PAGE_MS = 5000;    // why a job waits changes without an event

const TILES = [["loss", "Loss", number], ["evaluation_loss", "Evaluation loss", number], ["loss_g", "Generator loss", number], ["loss_d", "Critic loss", number],
  ["tokens_per_second", "Tokens per second", count], ["images_per_second", "Images per second", count], ["mfu", "MFU", x => number(x * 100, 3) + " %"],
  ["learning_rate", "Learning rate", x => number(x, 3)], ["gradient_norm", "Gradient norm", x => number(x, 3)], ["compression_ratio", "Compression", x => number(x, 3) + "×"]];
const CHARTS = [
  {title: "Loss", names: [["loss", "training"], ["evaluation_loss", "evaluation"], ["loss_g", "generator"], ["loss_d", "critic"]], log: true},
  {title: "Throughput", names: [["tokens_per_second", "tokens per second"], ["images_per_second", "images per second"]], zero: true, count: true},
  {title: "Gradient norm", names: [["gradient_norm", "gradient norm"]], log: true},
  {title: "Learning rate", names: [["learning_rate", "learning rate"]]},
];
const CHARTED = new Set([...CHARTS.flatMap(chart => chart.names.map(([name]) => name)), "tokens", "alarm", "update_dropped"]);

function fact(label, ...value) {
  return make("div", {}, make("dt", {}, label), make("dd", {}, value));
}

export class JobView {
  constructor(main, uid) {
    this.name = "jobs";
    this.job = uid;
    this.main = main;
    this.curves = new Map();   // name -> [[step, value], ...]
    this.lastStep = -1;
    this.control = new AbortController();
    this.trialsAlarm = new Alarm(() => this.search.load(this.control.signal).catch(() => {}), 800);
    document.title = "Job · Trainyard";
    fill(main, make("p", {class: "loading"}, "Loading the job"));
  }

  build() {
    this.head = make("div", {class: "job-head"});
    this.notice = make("div", {});
    this.bar = make("div", {class: "job-bar"});
    this.tiles = make("div", {class: "tiles"});
    this.charts = CHARTS.map(options => ({...options, chart: new Chart(options)}));
    this.more = {picked: "", chart: new Chart({title: "Other metric", log: true})};
    this.pick = make("select", {"aria-label": "Metric", onchange: () => {
      this.more.picked = this.pick.value;
      this.loadPicked();
    }});
    this.pickLine = make("label", {class: "pick", hidden: true}, "Another metric ", this.pick);
    this.curvesNote = make("p", {class: "note"});
    this.compression = new Compression();
    this.search = new Search(this.job);
    this.attempts = make("section", {"aria-label": "Attempts"});
    this.logs = new Logs(this.job);
    this.result = make("section", {"aria-label": "Result"});
    this.spec = make("section", {"aria-label": "Specification"});
    fill(this.main, this.head, this.notice, this.bar, this.tiles,
      make("section", {"aria-label": "Curves"}, make("div", {class: "charts"}, this.charts.map(one => one.chart.element), this.more.chart.element), this.pickLine, this.curvesNote),
      this.compression.element, this.search.element, this.result, this.attempts, this.logs.element, this.spec);
    this.more.chart.element.hidden = true;
  }

  async load() {
    const signal = this.control.signal;
    const page = await get("/api/jobs/" + encodeURIComponent(this.job), {}, signal);
    if (!this.head) this.build();
    this.take(page.job);
    this.loadCurves(true);
    this.search.load(signal).catch(() => {});
    return page.revision || "0";
  }

  take(job) {
    this.data = job;
    document.title = job.name + " · Trainyard";
    this.drawHead();
    this.drawNumbers();
    this.drawAttempts();
    this.drawResult();
    this.logs.set(job);
    clearTimeout(this.pageTimer);
    if (!TERMINAL.has(job.state)) this.pageTimer = setTimeout(() => this.refresh(), PAGE_MS);
  }

  async refresh() {
    clearTimeout(this.pageTimer);
    if (document.hidden) {
      this.pageTimer = setTimeout(() => this.refresh(), PAGE_MS);
      return;
    }
    try {
      const {job} = await get("/api/jobs/" + encodeURIComponent(this.job), {}, this.control.signal);
      this.take(job);
    } catch (error) {
      if (error.name !== "AbortError") this.pageTimer = setTimeout(() => this.refresh(), PAGE_MS);
    }
  }

  // ---- parts ----

  drawHead() {
    const job = this.data;
    const world = slotsOf(job) + " slot" + (slotsOf(job) === 1 ? "" : "s");
    this.age = make("dd", {});
    fill(this.head, make("p", {class: "crumbs"}, make("a", {href: "#/jobs"}, "Jobs"), " / ", job.parentUid ? [make("a", {href: "#/job/" + job.parentUid}, "parent"), " / "] : null),
      make("div", {class: "title"}, make("h1", {}, job.name), pill(job.state)),
      make("dl", {class: "facts"}, fact("Kind", job.kind), fact("Queue", job.queue || "default"), fact("Namespace", job.namespace || "default"), fact("Gang", world),
        fact("Submitted", when(job.submitTime)), make("div", {}, make("dt", {}, job.endTime ? "Took" : job.startTime ? "Running for" : "Waiting for"), this.age),
        job.committedStep ? fact("Checkpoint", "step " + count(job.committedStep)) : null,
        job.parentUid ? fact("Trial", (job.trialIndex || 0) + " of generation " + (job.generation || 0)) : null,
        fact("Uid", make("span", {class: "mono"}, job.uid))));
    const notices = [];
    if (job.pending && WAITING.has(job.state) || job.pending && job.state === "JOB_STATE_STOPPING") {
      notices.push(make("div", {class: "notice wait"}, make("b", {}, words(job.pending.code)), make("p", {}, job.pending.message || "")));
    }
    const last = (job.attempts || [])[(job.attempts || []).length - 1];
    const exit = job.exit && (job.exit.reason || job.exit.message) ? job.exit : job.state === "JOB_STATE_RECOVERING" && last ? last.exit : null;
    if (exit && job.state !== "JOB_STATE_SUCCEEDED") {
      notices.push(make("div", {class: "notice " + (job.state === "JOB_STATE_FAILED" ? "bad" : "wait")},
        make("b", {}, words(exit.reason), exit.failureClass ? " · " + words(exit.failureClass).toLowerCase() : ""), make("p", {}, exit.message || ""),
        exit.lastLogLines && exit.lastLogLines.length ? make("pre", {class: "hint"}, exit.lastLogLines.join("\n")) : null));
    }
    fill(this.notice, notices);
    this.tick();
  }

  drawNumbers() {
    const job = this.data;
    const progress = job.progress || {};
    const total = Number(progress.totalSteps || (job.spec && job.spec.training && job.spec.training.steps) || 0);
    const step = job.state === "JOB_STATE_SUCCEEDED" && total ? total : Number(progress.step || job.committedStep || 0);
    const left = this.rate > 0 && total > step && job.state === "JOB_STATE_RUNNING" ? "about " + duration((total - step) / this.rate) + " left" : "";
    fill(this.bar, total ? [meter(step / total, "step " + step + " of " + total, job.state === "JOB_STATE_SUCCEEDED" ? "done" : TERMINAL.has(job.state) ? "off" : ""),
      make("span", {class: "sub"}, "step " + step.toLocaleString("en-US") + " of " + total.toLocaleString("en-US") + (progress.section && !TERMINAL.has(job.state) ? " · " + progress.section : "") + (left ? " · " + left : ""))]
      : progress.section && !TERMINAL.has(job.state) ? make("span", {class: "sub"}, progress.section) : null);
    const v = this.newest();
    fill(this.tiles, TILES.filter(([name]) => v[name] !== undefined).map(([name, label, text]) =>
      make("div", {class: "tile", "data-metric": name}, make("span", {class: "tile-label"}, label), make("span", {class: "tile-value"}, text(v[name])))));
  }

  // Newest values: of the last progress, or the ends of the curves.
  newest() {
    const v = {};
    for (const [name, points] of this.curves) if (points.length) v[name] = points[points.length - 1][1];
    return Object.assign(v, values(this.data));
  }

  drawAttempts() {
    const attempts = [...(this.data.attempts || [])].reverse();
    if (!attempts.length) return fill(this.attempts);
    fill(this.attempts, make("h2", {}, attempts.length === 1 ? "Attempt" : "Attempts"), make("table", {class: "cards compact"},
      make("thead", {}, make("tr", {}, ["#", "State", "Began at step", "Where", "Took", "How it ended"].map((label, i) => make("th", {scope: "col", class: i === 0 || i === 2 || i === 4 ? "num" : ""}, label)))),
      make("tbody", {}, attempts.map(one => {
        const places = one.places || [];
        const where = places.slice(0, 8).map(place => place.rank || 0).length ? places.slice(0, 8).map(place => (place.rank || 0) + ": " + (place.host || place.workerId) + "/" + (place.slot || 0)).join(", ") + (places.length > 8 ? " and " + (places.length - 8) + " more" : "") : "–";
        return make("tr", {}, make("td", {class: "num", "data-label": "#"}, one.number), make("td", {"data-label": "State"}, pill(one.state)), make("td", {class: "num", "data-label": "Began at step"}, count(one.restoredStep || 0)),
          make("td", {"data-label": "Where"}, make("span", {class: "mono small"}, where)), make("td", {class: "num", "data-label": "Took"}, duration(secondsBetween(one.startTime || one.createTime, one.endTime))),
          make("td", {"data-label": "How it ended"}, one.exit && one.exit.reason ? [words(one.exit.reason), one.exit.message ? make("span", {class: "sub why"}, one.exit.message) : null] : one.endTime ? words(one.state) : "–"));
      }))));
  }

  drawResult() {
    const {result} = this.data;
    if (result) {
      fill(this.result, make("h2", {}, "Result"),
        make("dl", {class: "facts"}, Object.entries(result.values || {}).sort().map(([name, value]) => fact(name.replaceAll("_", " "), number(value)))),
        (result.artifacts || []).map(one => make("p", {class: "artifact"}, make("b", {}, one.name), " ", make("span", {class: "mono small"}, one.path), one.bytes ? " · " + bytes(one.bytes) : "")),
        Object.keys(result.documents || {}).map(name => make("p", {class: "artifact"}, make("b", {}, name), " ", make("span", {class: "mono small"}, "trainyard get " + this.data.name + " --document " + name))),
        (result.samples || []).map(text => make("blockquote", {class: "sample"}, text)));
    } else fill(this.result);
    const text = JSON.stringify(this.data.spec || {}, null, 2);
    if (this.specText !== text) {
      this.specText = text;
      fill(this.spec, make("details", {}, make("summary", {}, "Specification"), make("pre", {class: "hint"}, text)));
    }
  }

  // ---- curves ----

  async loadCurves(all) {
    if (this.isLoading) {
      this.wantsMore = true;
      return;
    }
    this.isLoading = true;
    clearTimeout(this.curveTimer);
    const path = "/api/jobs/" + encodeURIComponent(this.job) + "/metrics";
    try {
      const answers = [await get(path, {after_step: all ? "" : this.lastStep, max_points: POINTS}, this.control.signal)];
      // Evaluations are rare, and an even choice of points would miss them.
      if (all && answers[0].steps.length >= POINTS) answers.push(await get(path, {names: "evaluation_loss", max_points: POINTS}, this.control.signal));
      if (all) this.curves = new Map();
      answers.forEach((answer, i) => this.takePoints(answer, i > 0));
      this.drawCurves();
      if (this.curves.size && [...this.curves.values()].some(points => points.length > KEPT)) this.wantsAll = true;
    } catch (error) {
      if (error.name !== "AbortError") setText(this.curvesNote, "The curves could not be read: " + error.message);
    }
    this.isLoading = false;
    if (this.wantsMore || this.wantsAll) {
      const again = this.wantsAll;
      this.wantsMore = this.wantsAll = false;
      this.curveTimer = setTimeout(() => this.loadCurves(again), MORE_MS);
    }
  }

  takePoints(answer, replace) {
    const {steps, times} = answer;
    for (const [name, column] of Object.entries(answer.values)) {
      if (replace || !this.curves.has(name)) this.curves.set(name, []);
      const points = this.curves.get(name);
      column.forEach((value, i) => {
        if (value === null) return;
        // An attempt that resumed does steps again; the newest value of a step counts.
        while (points.length && points[points.length - 1][0] >= steps[i]) points.pop();
        points.push([steps[i], value]);
      });
    }
    if (!steps.length || replace) return;
    const n = steps.length - 1;
    if (n > 0 && times[n] > times[Math.max(0, n - 50)]) {
      const from = Math.max(0, n - 50);
      this.rate = (steps[n] - steps[from]) / ((times[n] - times[from]) / 1000);
    }
    this.lastStep = steps[n];
  }

  marks() {
    return (this.data.attempts || []).slice(1).map(one => ({x: Number(one.restoredStep || 0), label: "attempt " + one.number}));
  }

  drawCurves() {
    const marks = this.marks();
    for (const one of this.charts) {
      one.chart.set(one.names.filter(([name]) => this.curves.has(name)).map(([name, label]) => ({label, points: this.curves.get(name), dots: name === "evaluation_loss"})), marks);
    }
    this.compression.set(this.newest(), this.curves, marks);
    const others = [...this.curves.keys()].filter(name => !CHARTED.has(name) && !IS_COMPRESSION(name)).sort();
    this.pickLine.hidden = others.length === 0;
    if ([...this.pick.options].slice(1).map(option => option.value).join() !== others.join()) {
      fill(this.pick, make("option", {value: ""}, "choose"), others.map(name => make("option", {value: name}, name)));
      this.pick.value = others.includes(this.more.picked) ? this.more.picked : "";
    }
    this.loadPicked();
    setText(this.curvesNote, this.curves.size || this.search.generations.size ? "" : TERMINAL.has(this.data.state) ? "This job reported no numbers." : "Curves appear with the first steps.");
    this.drawNumbers();
  }

  loadPicked() {
    const points = this.curves.get(this.more.picked) || [];
    this.more.chart.options.title = this.more.picked.replaceAll("_", " ");
    setText(this.more.chart.element.querySelector(".chart-title"), this.more.chart.options.title);
    this.more.chart.set([{label: this.more.picked, points}], this.marks());
    this.more.chart.element.hidden = !points.length;
  }

  // ---- events ----

  onJob(job) {
    if (!this.data) return;
    if (job.uid !== this.job) {   // a trial of this one
      this.trialsAlarm.within(800);
      return;
    }
    // The event has a row's share of the job; the state is shown at once and the rest fetched.
    this.data.state = job.state;
    this.drawHead();
    const newAttempt = job.attempts && job.attempts.length && Number(job.attempts[0].number) > (this.data.attempts || []).length;
    clearTimeout(this.pageTimer);
    this.pageTimer = setTimeout(() => this.refresh().then(() => this.loadCurves(Boolean(newAttempt))), 150);
  }

  onProgress(event) {
    if (!this.data || event.jobUid !== this.job) return;
    this.data.progress = event.progress;
    this.drawNumbers();
    this.compression.element.hidden || this.compression.set(this.newest(), this.curves, this.marks());
    if (!this.isLoading && !this.curveWaits) {
      this.curveWaits = setTimeout(() => {
        this.curveWaits = null;
        this.loadCurves(false);
      }, MORE_MS);
    }
  }

  tick() {
    const job = this.data;
    if (!job || !this.age) return;
    setText(this.age, duration(job.endTime ? secondsBetween(job.startTime || job.submitTime, job.endTime) : secondsSince(job.startTime || job.submitTime)));
  }

  fail(error) {
    if (this.head) return;
    fill(this.main, error ? empty(error.status === 404 ? "No such job" : "The job cannot be shown", error.message) : empty("The coordinator does not answer", "This page tries again by itself."),
      make("p", {class: "center"}, make("a", {href: "#/jobs"}, "All jobs")));
  }

  leave() {
    this.control.abort();
    this.trialsAlarm.stop();
    for (const timer of [this.pageTimer, this.curveTimer, this.curveWaits]) clearTimeout(timer);
    if (!this.head) return;
    for (const one of this.charts) one.chart.remove();
    this.more.chart.remove();
    this.compression.remove();
    this.search.remove();
    this.logs.remove();
  }
}
