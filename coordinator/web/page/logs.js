// The tail of one rank's log, which follows while the rank writes.
import {get} from "./api.js";
import {fill, make, setText} from "./dom.js";
import {bytes, words} from "./format.js";

const FOLLOW_MS = 1500;
const TAIL = 64 * 1024;
const KEPT = 512 * 1024;   // characters in the page

export class Logs {
  constructor(uid) {
    this.uid = uid;
    this.key = "";
    const choice = label => make("select", {"aria-label": label, onchange: () => this.restart()});
    this.attempt = choice("Attempt");
    this.rank = choice("Rank");
    this.stream = choice("Stream");
    fill(this.stream, ["stderr", "stdout"].map(name => make("option", {value: name}, name)));
    this.follow = make("input", {type: "checkbox", id: "follow"});
    this.follow.checked = true;
    this.text = make("pre", {class: "log", tabindex: "0", "aria-label": "Log"});
    this.state = make("p", {class: "note", role: "status"});
    this.element = make("section", {hidden: true, "aria-label": "Logs"},
      make("div", {class: "section-head"}, make("h2", {}, "Logs"), make("label", {}, "Attempt ", this.attempt), make("label", {}, "Rank ", this.rank),
        make("label", {}, "Stream ", this.stream), make("label", {for: "follow"}, this.follow, " Follow")), this.text, this.state);
  }

  // What the job's attempts offer; the newest one unless somebody chose.
  set(job) {
    const attempts = job.attempts || [];
    this.element.hidden = attempts.length === 0;
    if (!attempts.length) return;
    const newest = attempts[attempts.length - 1];
    const key = attempts.map(one => one.number + ":" + (one.places || []).length).join();
    if (key !== this.key) {
      this.key = key;
      const before = this.attempt.value;
      fill(this.attempt, attempts.map(one => make("option", {value: one.number}, one.number + " (" + words(one.state).toLowerCase() + ")")));
      this.attempt.value = before && before !== this.newest ? before : newest.number;
      this.newest = String(newest.number);
      this.attempts = attempts;
      this.restart();
    }
  }

  restart() {
    const chosen = this.attempts.find(one => String(one.number) === this.attempt.value);
    const ranks = Math.max(1, (chosen && chosen.places || []).length);
    const rank = Number(this.rank.value) < ranks ? this.rank.value || "0" : "0";
    fill(this.rank, [...Array(ranks).keys()].map(r => make("option", {value: r}, r)));
    this.rank.value = rank;
    this.offset = null;
    this.decoder = new TextDecoder("utf-8");
    this.text.textContent = "";
    this.more();
  }

  async more() {
    clearTimeout(this.timer);
    const turn = this.turn = {};
    try {
      const tail = await get("/api/jobs/" + encodeURIComponent(this.uid) + "/logs",
        {attempt: this.attempt.value, rank: this.rank.value, stream: this.stream.value, offset: this.offset === null ? -TAIL : this.offset});
      if (turn !== this.turn) return;
      const first = this.offset === null;
      const before = first && tail.frames.length && Number(tail.frames[0].offset || 0) > 0;
      let added = "";
      for (const frame of tail.frames) {
        if (Number(frame.gapBytes || 0)) added += "\n··· " + bytes(frame.gapBytes) + " of the log are lost ···\n";
        if (frame.data) added += this.decoder.decode(Uint8Array.from(atob(frame.data), c => c.charCodeAt(0)), {stream: true});
      }
      if (before) added = added.slice(added.indexOf("\n") + 1);   // the first line is cut somewhere
      this.offset = Number(tail.nextOffset);
      if (added) this.add(added);
      const size = Number(tail.size);
      setText(this.state, size === 0 ? (tail.ended ? "This rank wrote nothing here." : "Nothing written yet.")
        : bytes(size) + (tail.ended ? ", complete" : "") + (before ? "; the beginning is not shown: trainyard logs " + this.uid : ""));
      if (this.offset < size) this.timer = setTimeout(() => this.more(), 0);
      else if (!tail.ended) this.timer = setTimeout(() => this.again(), FOLLOW_MS);
    } catch (error) {
      if (turn !== this.turn) return;
      setText(this.state, error.message);
      this.timer = setTimeout(() => this.again(), FOLLOW_MS * 3);
    }
  }

  again() {
    if (this.follow.checked && !document.hidden) this.more();
    else this.timer = setTimeout(() => this.again(), FOLLOW_MS);
  }

  add(added) {
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    this.text.append(document.createTextNode(added));
    while (this.text.textContent.length > KEPT && this.text.childNodes.length > 1) this.text.firstChild.remove();
    if (atEnd || this.text.childNodes.length === 1) this.text.scrollTop = this.text.scrollHeight;
  }

  remove() {
    clearTimeout(this.timer);
    this.turn = null;
  }
}
