// Workers and their slots; those in trouble come first.
import {get} from "./api.js";
import {empty, fill, make, setText} from "./dom.js";
import {bytes, duration, secondsSince, short, words} from "./format.js";
import {pill} from "./jobs.js";

const REFRESH_MS = 3000;
const PAGE = 100;

function slot(one) {
  const state = short(one.state);
  const type = short(one.type).toLowerCase();
  const what = type + " slot " + (one.index || 0) + ": " + words(one.state).toLowerCase() +
    (one.jobName ? ", " + one.jobName + " rank " + (one.rank || 0) : "") + (one.healthMessage ? ", " + one.healthMessage : "") +
    (one.gpu && one.gpu.name ? ", " + one.gpu.name + " " + bytes(one.gpu.memoryBytes || 0) : "");
  const attributes = {class: "slot", "data-state": state, "data-type": type, title: what, "aria-label": what};
  return one.jobUid ? make("a", {...attributes, href: "#/job/" + one.jobUid}, type === "driver" ? "d" : one.rank || 0)
    : make("span", {...attributes, role: "img"}, type === "driver" ? "d" : "");
}

export class WorkersView {
  constructor(main) {
    this.name = "workers";
    this.limit = PAGE;
    document.title = "Workers · Trainyard";
    this.note = make("p", {class: "note", role: "status"});
    this.body = make("tbody", {});
    this.table = make("table", {class: "cards", hidden: true},
      make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "State"), make("th", {scope: "col"}, "Worker"),
        make("th", {scope: "col", class: "wide"}, "Slots"), make("th", {scope: "col", class: "num"}, "In use"),
        make("th", {scope: "col", class: "num"}, "Last heartbeat"))), this.body);
    this.more = make("button", {type: "button", hidden: true, onclick: () => {
      this.limit += PAGE;
      this.load().catch(() => {});
    }}, "Show more");
    this.none = make("div", {}, make("p", {class: "loading"}, "Loading workers"));
    const legend = [["FREE", "free"], ["BUSY", "in use, with its rank"], ["RESERVED", "reserved"], ["UNHEALTHY", "unusable"]].map(
      ([state, label]) => make("li", {}, make("span", {class: "slot", "data-state": state, "aria-hidden": "true"}), label));
    fill(main, make("div", {class: "toolbar"}, make("h1", {}, "Workers"), make("ul", {class: "legend", "aria-label": "Slots"}, legend,
      make("li", {}, make("span", {class: "slot", "data-state": "FREE", "data-type": "driver", "aria-hidden": "true"}, "d"), "driver"))),
    this.none, this.table, make("div", {class: "more"}, this.more, this.note));
  }

  async load() {
    clearTimeout(this.timer);
    const workers = [];
    let total = 0;
    do {
      const page = await get("/api/workers", {offset: workers.length, limit: Math.min(200, this.limit - workers.length)});
      workers.push(...page.workers);
      total = page.total;
      this.revision = page.revision;
      if (!page.workers.length) break;
    } while (workers.length < Math.min(total, this.limit));
    this.beats = [];
    fill(this.body, workers.map(worker => this.row(worker)));
    this.table.hidden = workers.length === 0;
    this.more.hidden = workers.length >= total;
    setText(this.note, workers.length < total ? workers.length + " of " + total + " workers" : "");
    if (workers.length) this.none.replaceChildren();
    else {
      fill(this.none, empty("No workers yet", "Start a daemon that knows this coordinator, and it appears here:"),
        make("pre", {class: "hint"}, "trainyard-worker --coordinator HOST:7070 --state_dir DIR --job_root DIR"));
    }
    this.tick();
    this.timer = setTimeout(() => this.again(), REFRESH_MS);
    return this.revision || "0";
  }

  again() {
    if (document.hidden) this.timer = setTimeout(() => this.again(), REFRESH_MS);
    else this.load().catch(() => {
      this.timer = setTimeout(() => this.again(), REFRESH_MS);
    });
  }

  row(worker) {
    const slots = (worker.slots || []).filter(one => short(one.type) !== "DRIVER");
    const drivers = (worker.slots || []).filter(one => short(one.type) === "DRIVER");
    const busy = slots.filter(one => one.state === "SLOT_STATE_BUSY" || one.state === "SLOT_STATE_RESERVED").length;
    const beat = make("td", {class: "num", "data-label": "Heartbeat"});
    this.beats.push([beat, worker.lastHeartbeatTime]);
    const trouble = (worker.slots || []).filter(one => one.healthMessage).map(one => "slot " + (one.index || 0) + ": " + one.healthMessage);
    const usedDrivers = drivers.filter(one => one.jobUid);
    return make("tr", {},
      make("td", {"data-label": "State"}, pill(worker.state)),
      make("td", {"data-label": "Worker"}, make("span", {class: "job-name"}, worker.host || worker.workerId),
        make("span", {class: "sub mono"}, worker.workerId + (worker.version ? " · " + worker.version : "")),
        trouble.map(text => make("span", {class: "sub why bad"}, text))),
      make("td", {class: "wide slots", "data-label": "Slots"}, slots.map(slot), usedDrivers.map(slot),
        drivers.length ? make("span", {class: "sub inline"}, (drivers.length - usedDrivers.length) + " driver slots free") : null),
      make("td", {class: "num", "data-label": "In use"}, busy + " / " + slots.length), beat);
  }

  tick() {
    for (const [cell, time] of this.beats || []) setText(cell, time ? duration(secondsSince(time)) + " ago" : "–");
  }

  onJob() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.again(), 300);
  }

  fail(error) {
    if (this.body.children.length) return;
    fill(this.none, error ? empty("Workers cannot be shown", error.message) : empty("The coordinator does not answer", "This page tries again by itself."));
  }

  leave() {
    clearTimeout(this.timer);
  }
}
