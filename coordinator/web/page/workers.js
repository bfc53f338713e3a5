// Workers and their slots; those in trouble come first.
import {Alarm} from "./alarm.js";
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

// Of many workers few change from one look to the next, so a row is made anew only if it is to show something else; the
// time of the last heartbeat, which always changes, is a text of its own.
class Row {
  constructor() {
    this.element = make("tr", {});
    this.beat = make("td", {class: "num", "data-label": "Heartbeat"});
    this.shown = "";
  }

  take(worker) {
    const {lastHeartbeatTime, ...rest} = worker;
    this.beatTime = lastHeartbeatTime;
    this.tick();
    const wanted = JSON.stringify(rest);
    if (wanted === this.shown) return;
    this.shown = wanted;
    const slots = (worker.slots || []).filter(one => short(one.type) !== "DRIVER");
    const drivers = (worker.slots || []).filter(one => short(one.type) === "DRIVER");
    const busy = slots.filter(one => one.state === "SLOT_STATE_BUSY" || one.state === "SLOT_STATE_RESERVED").length;
    const trouble = (worker.slots || []).filter(one => one.healthMessage).map(one => "slot " + (one.index || 0) + ": " + one.healthMessage);
    const usedDrivers = drivers.filter(one => one.jobUid);
    fill(this.element,
      make("td", {"data-label": "State"}, pill(worker.state)),
      make("td", {"data-label": "Worker"}, make("span", {class: "job-name"}, worker.host || worker.workerId),
        make("span", {class: "sub mono"}, worker.workerId + (worker.version ? " · " + worker.version : "")),
        trouble.map(text => make("span", {class: "sub why bad"}, text))),
      make("td", {class: "wide slots", "data-label": "Slots"}, slots.map(slot), usedDrivers.map(slot),
        drivers.length ? make("span", {class: "sub inline"}, (drivers.length - usedDrivers.length) + " driver slots free") : null),
      make("td", {class: "num", "data-label": "In use"}, busy + " / " + slots.length), this.beat);
  }

  tick() {
    setText(this.beat, this.beatTime ? duration(secondsSince(this.beatTime)) + " ago" : "–");
  }
}

export class WorkersView {
  constructor(main) {
    this.name = "workers";
    this.rows = new Map();   // by worker
    this.alarm = new Alarm(() => this.again(), 1000);
    this.limit = PAGE;
    this.turn = 0;           // of the newest look
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
    const turn = ++this.turn;
    const workers = [];
    let total = 0;
    do {
      const page = await get("/api/workers", {offset: workers.length, limit: Math.min(200, this.limit - workers.length)});
      workers.push(...page.workers);
      total = page.total;
      this.revision = page.revision;
      if (!page.workers.length) break;
    } while (workers.length < Math.min(total, this.limit));
    if (turn !== this.turn) return this.revision || "0";   // asked again meanwhile, for more perhaps
    this.take(workers);
    this.table.hidden = workers.length === 0;
    this.more.hidden = workers.length >= total;
    setText(this.note, workers.length < total ? workers.length + " of " + total + " workers" : "");
    if (workers.length) this.none.replaceChildren();
    else {
      fill(this.none, empty("No workers yet", "Start a daemon that knows this coordinator, and it appears here:"),
        make("pre", {class: "hint"}, "trainyard-worker --coordinator HOST:7070 --state_dir DIR --job_root DIR"));
    }
    this.alarm.within(REFRESH_MS);
    return this.revision || "0";
  }

  // Rows in the order of the list; what is where it belongs is not touched.
  take(workers) {
    const rows = new Map();
    for (const worker of workers) {
      const row = this.rows.get(worker.workerId) || new Row();
      row.take(worker);
      rows.set(worker.workerId, row);
    }
    for (const [id, row] of this.rows) if (!rows.has(id)) row.element.remove();
    let next = this.body.firstElementChild;
    for (const {element} of rows.values()) {
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    this.rows = rows;
  }

  again() {
    if (document.hidden) this.alarm.within(REFRESH_MS);
    else this.load().catch(() => this.alarm.within(REFRESH_MS));
  }

  tick() {
    for (const row of this.rows.values()) row.tick();
  }

  onJob() {
    this.alarm.within(300);
  }

  fail(error) {
    if (this.body.children.length) return;
    fill(this.none, error ? empty("Workers cannot be shown", error.message) : empty("The coordinator does not answer", "This page tries again by itself."));
  }

  leave() {
    this.alarm.stop();
  }
}
