// Jobs that wait, in the order in which the scheduler tries them, each with the reason why it does not run.
import {Alarm} from "./alarm.js";
import {get} from "./api.js";
import {empty, fill, make, setText} from "./dom.js";
import {duration, secondsSince, words} from "./format.js";
import {jobLink, pill} from "./jobs.js";

const REFRESH_MS = 3000;   // reasons change without any event: a slot becomes free, a back-off ends

export class QueueView {
  constructor(main) {
    this.name = "queue";
    document.title = "Queue · Trainyard";
    this.alarm = new Alarm(() => this.again(), 500);
    this.note = make("p", {class: "note", role: "status"});
    this.reasons = make("ul", {class: "chips", "aria-label": "Reasons"});
    this.body = make("tbody", {});
    this.table = make("table", {class: "cards", hidden: true},
      make("thead", {}, make("tr", {}, make("th", {scope: "col", class: "num"}, "#"), make("th", {scope: "col"}, "Job"),
        make("th", {scope: "col", class: "wide"}, "Why it waits"), make("th", {scope: "col", class: "num"}, "Slots"),
        make("th", {scope: "col", class: "num"}, "Priority"), make("th", {scope: "col", class: "num"}, "Waits for"))), this.body);
    this.none = make("div", {}, make("p", {class: "loading"}, "Loading the queue"));
    fill(main, make("div", {class: "toolbar"}, make("h1", {}, "Queue"), this.reasons), this.none, this.table, make("div", {class: "more"}, this.note));
  }

  async load() {
    const queue = await get("/api/queue", {limit: 200});
    const tallied = new Map();
    this.waits = [];
    fill(this.body, queue.jobs.map((job, i) => {
      const pending = job.pending || {};
      const code = words(pending.code || "waiting");
      tallied.set(code, (tallied.get(code) || 0) + 1);
      const wait = make("td", {class: "num", "data-label": "Waits for"});
      this.waits.push([wait, job.submitTime]);
      return make("tr", {},
        make("td", {class: "num", "data-label": "Place"}, i + 1),
        make("td", {"data-label": "Job"}, jobLink(job), make("span", {class: "sub"}, job.kind + " · " + job.queue +
          (job.queuePosition ? " · place " + job.queuePosition + " there" : ""))),
        make("td", {class: "wide", "data-label": "Why"}, job.state === "JOB_STATE_QUEUED" ? null : pill(job.state),
          make("strong", {class: "reason"}, code), make("span", {class: "sub why"}, pending.message || "")),
        make("td", {class: "num", "data-label": "Slots"}, pending.slotsNeeded || "–"),
        make("td", {class: "num", "data-label": "Priority"}, job.priority || 0), wait);
    }));
    fill(this.reasons, [...tallied].sort((a, b) => b[1] - a[1]).map(([code, amount]) => make("li", {}, make("b", {}, amount), " " + code.toLowerCase())));
    this.table.hidden = queue.jobs.length === 0;
    if (queue.jobs.length) this.none.replaceChildren();
    else fill(this.none, empty("Nothing waits", "Every job that may run has its slots."));
    setText(this.note, queue.total > queue.jobs.length ? "The first " + queue.jobs.length + " of " + queue.total + " are shown." : "");
    this.tick();
    this.alarm.within(REFRESH_MS);
    return queue.revision || "0";
  }

  again() {
    if (document.hidden) this.alarm.within(REFRESH_MS);
    else this.load().catch(() => this.alarm.within(REFRESH_MS));
  }

  onJob() {
    this.alarm.within(200);
  }

  tick() {
    for (const [cell, time] of this.waits || []) setText(cell, duration(secondsSince(time)));
  }

  fail(error) {
    if (this.body.children.length) return;
    fill(this.none, error ? empty("The queue cannot be shown", error.message) : empty("The coordinator does not answer", "This page tries again by itself."));
  }

  leave() {
    this.alarm.stop();
  }
}
