// The frame: which view is shown, the counts at its top, and what is said about the connection.
import {Alarm} from "./alarm.js";
import {get} from "./api.js";
import {fill, make, setText} from "./dom.js";
import {duration, secondsSince, words} from "./format.js";
import {Live} from "./live.js";
import {JobView} from "./job.js";
import {JobsView} from "./jobs.js";
import {QueueView} from "./queue.js";
import {WorkersView} from "./workers.js";

const main = document.getElementById("main");
const tally = document.getElementById("tally");
const link = document.getElementById("link");
const lost = document.getElementById("lost");
const OVERVIEW_MS = 3000;

let view = null;
let lostSince = null;
const counts = new Alarm(overview, 300);

// ---- the connection ----

const live = new Live({
  onState(state) {
    link.dataset.state = state;
    link.textContent = {connecting: "Connecting", live: "Live", lost: "Offline", polling: "Every 5 s"}[state] || "";
    link.title = state === "polling" ? "The coordinator has no live stream left; this page asks again every 5 seconds." : "";
    document.body.classList.toggle("stale", state === "lost");
    if (state === "lost") lostSince = lostSince || Date.now();
    else lostSince = null;
    sayLost();
  },
  onReload: load,
  onJob(job) {
    if (view && view.onJob) view.onJob(job);
    counts.within(300);
  },
  onProgress(event) {
    if (view && view.onProgress) view.onProgress(event);
  },
});

function sayLost() {
  lost.hidden = lostSince === null;
  if (lostSince === null) return;
  setText(lost, "The coordinator does not answer. What you see is " + duration((Date.now() - lostSince) / 1000) +
    " old; training goes on without it. Trying again.");
}

// Lists what the view shows, then follows from there.
async function load() {
  const mine = view;
  if (!mine) return;
  try {
    const revision = await mine.load();
    if (mine === view) live.listed(mine.job || "", revision);
  } catch (error) {
    if (error.name === "AbortError" || mine !== view) return;
    if (error.status === 0) {
      mine.fail(null);
      live.lost();
    } else {
      live.close();
      live.setState("live");
      mine.fail(error);
    }
  }
}

// ---- the counts ----

function tile(label, value, detail, href) {
  return make(href ? "a" : "div", {class: "tile", href},
    make("span", {class: "tile-label"}, label), make("span", {class: "tile-value"}, value),
    detail ? make("span", {class: "tile-detail"}, detail) : null);
}

async function overview() {
  if (!document.hidden) {
    try {
      const now = await get("/api/overview");
      const jobs = state => now.jobs[state] || 0;
      const waiting = jobs("QUEUED") + jobs("RECOVERING");
      const reasons = Object.entries(now.pending).sort((a, b) => b[1] - a[1]);
      const slots = {all: 0, busy: 0, bad: 0};
      for (const [type, states] of Object.entries(now.slots)) {
        if (type === "DRIVER") continue;
        for (const [state, amount] of Object.entries(states)) {
          slots.all += amount;
          if (state === "BUSY" || state === "RESERVED") slots.busy += amount;
          if (state === "UNHEALTHY" || state === "UNREACHABLE") slots.bad += amount;
        }
      }
      const troubled = Object.entries(now.workers).filter(([state]) => state !== "READY");
      fill(tally,
        tile("Running", jobs("RUNNING") + jobs("ADMITTED") + jobs("STOPPING"),
          jobs("STOPPING") ? jobs("STOPPING") + " stopping" : "", "#/jobs?show=running"),
        tile("Waiting", waiting, reasons.length && waiting ? words(reasons[0][0]).toLowerCase() : "", "#/queue"),
        tile("Failed", jobs("FAILED"), "", "#/jobs?show=failed"),
        tile("Slots in use", slots.busy + " / " + slots.all, slots.bad ? slots.bad + " unusable" : "", "#/workers"),
        tile("Workers ready", now.workers.READY || 0,
          troubled.map(([state, amount]) => amount + " " + words(state).toLowerCase()).join(", "), "#/workers"));
      setText(document.getElementById("footer"), "Trainyard " + now.version + " · up " +
        duration(secondsSince(now.startTime)) + " · epoch " + now.leaderEpoch);
    } catch (error) {
      // The stream tells of a lost connection; the counts just stay as they were.
    }
  }
  counts.within(OVERVIEW_MS);
}

// ---- routes ----

function show() {
  const [path, query] = (location.hash.slice(1) || "/jobs").split("?");
  const parts = path.split("/").filter(part => part);
  const parameters = new URLSearchParams(query || "");
  live.close();
  if (view && view.leave) view.leave();
  if (parts[0] === "job" && parts[1]) view = new JobView(main, decodeURIComponent(parts[1]));
  else if (parts[0] === "queue") view = new QueueView(main);
  else if (parts[0] === "workers") view = new WorkersView(main);
  else view = new JobsView(main, parameters);
  for (const anchor of document.querySelectorAll("nav a")) {
    const isHere = anchor.dataset.view === view.name;
    if (isHere) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  load();
}

window.addEventListener("hashchange", () => {
  show();
  main.focus({preventScroll: true});
});
window.addEventListener("online", load);
setInterval(() => {
  sayLost();
  if (view && view.tick && !document.hidden) view.tick();
}, 1000);
live.setState("connecting");
show();
overview();
