// Generations of a job that asks for others: best score over generations, counts, and the trials of one generation.
import {get} from "./api.js";
import {Chart} from "./chart.js";
import {fill, make, setText} from "./dom.js";
import {duration, number, secondsBetween} from "./format.js";
import {jobLink, pill, values} from "./jobs.js";

// Values of trials that methods choose by; all are better when smaller. The first that a search has is shown first.
const SCORES = ["fitness", "tuned_kl", "kl", "evaluation_loss", "final_loss", "perplexity"];
const SHOWN = 200;   // newest generations in the table; the curve has all

export class Search {
  constructor(uid) {
    this.uid = uid;
    this.generations = new Map();
    this.score = "";
    this.open = null;
    this.chart = new Chart({title: "Best score", xLabel: "generations", log: true});
    this.choice = make("select", {"aria-label": "Score", onchange: () => {
      this.score = this.choice.value;
      this.draw();
    }});
    this.body = make("tbody", {});
    this.trials = make("div", {});
    this.note = make("p", {class: "note"});
    this.element = make("section", {hidden: true, "aria-label": "Search"},
      make("div", {class: "section-head"}, make("h2", {}, "Generations"), make("label", {}, "Score ", this.choice)),
      make("div", {class: "charts one"}, this.chart.element),
      make("table", {class: "cards compact"}, make("thead", {}, make("tr", {}, make("th", {scope: "col", class: "num"}, "Generation"),
        make("th", {scope: "col"}, "What"), make("th", {scope: "col", class: "wide"}, "Trials"), make("th", {scope: "col", class: "num"}, "Best"),
        make("th", {scope: "col", class: "num"}, "Took"))), this.body), this.note, this.trials);
  }

  // Asks again from the oldest generation that had not ended.
  async load(signal) {
    let from = 0;
    for (const [key, one] of this.generations) {
      if (!one.summary.endTime) {
        from = key;
        break;
      }
      from = key + 1;
    }
    do {
      const page = await get("/api/jobs/" + encodeURIComponent(this.uid) + "/generations", {from}, signal);
      for (const one of page.generations) this.generations.set(Number(one.summary.number || 0), one);
      from = page.next;
    } while (from);
    this.draw();
    if (this.open !== null) await this.showTrials(this.open, signal);
  }

  draw() {
    const all = [...this.generations.entries()].sort((a, b) => a[0] - b[0]);
    this.element.hidden = all.length === 0;
    if (!all.length) return;
    const names = [...new Set(all.flatMap(([, one]) => Object.keys(one.lowest)))];
    const order = name => SCORES.includes(name) ? SCORES.indexOf(name) : SCORES.length;
    names.sort((a, b) => order(a) - order(b) || a.localeCompare(b));
    if (!names.includes(this.score)) this.score = names[0] || "";
    if ([...this.choice.options].map(option => option.value).join() !== names.join()) {
      fill(this.choice, names.map(name => make("option", {value: name}, name)));
    }
    this.choice.value = this.score;
    this.choice.parentElement.hidden = names.length === 0;
    const points = all.filter(([, one]) => one.lowest[this.score] !== undefined).map(([key, one]) => [key, one.lowest[this.score]]);
    let best = Infinity;
    const soFar = points.map(([key, value]) => [key, best = Math.min(best, value)]);
    this.chart.set([{label: "of the generation", points, dots: true}, {label: "so far", points: soFar}]);
    setText(this.note, all.length > SHOWN ? "The newest " + SHOWN + " of " + all.length + " generations." : "");
    fill(this.body, all.slice(-SHOWN).reverse().map(([key, one]) => this.row(key, one)));
  }

  row(key, one) {
    const s = one.summary;
    const parts = [["done", s.succeededCount || 0, "succeeded"], ["failed", s.failedCount || 0, "failed"], ["running", s.runningCount || 0, "running"], ["", s.waitingCount || 0, "waiting"]];
    const bar = make("span", {class: "stack", role: "img", "aria-label": parts.filter(([, n]) => n).map(([, n, text]) => n + " " + text).join(", ")},
      parts.map(([kind, n]) => {
        const part = make("span", {class: "part " + kind});
        part.style.flexGrow = n;
        return n ? part : null;
      }));
    return make("tr", {class: key === this.open ? "open" : ""},
      make("td", {class: "num", "data-label": "Generation"}, make("button", {type: "button", class: "quiet", "aria-expanded": String(key === this.open), onclick: () => {
        this.open = this.open === key ? null : key;
        this.draw();
        if (this.open === null) this.trials.replaceChildren();
        else this.showTrials(key).catch(error => fill(this.trials, make("p", {class: "note"}, error.message)));
      }}, key)),
      make("td", {"data-label": "What"}, s.label || "–"),
      make("td", {class: "wide", "data-label": "Trials"}, bar, make("span", {class: "sub"}, (s.succeededCount || 0) + (s.failedCount || 0) + " of " + (s.totalCount || 0) + " ended" + (s.failedCount ? ", " + s.failedCount + " failed" : ""))),
      make("td", {class: "num", "data-label": "Best"}, number(one.lowest[this.score])),
      make("td", {class: "num", "data-label": "Took"}, duration(secondsBetween(s.createTime, s.endTime))));
  }

  async showTrials(generation, signal) {
    const page = await get("/api/jobs/" + encodeURIComponent(this.uid) + "/trials", {generation, limit: 200}, signal);
    const names = [...new Set(page.jobs.flatMap(job => Object.keys((job.result && job.result.values) || {})))].slice(0, 4);
    fill(this.trials, make("h3", {}, "Trials of generation " + generation), make("table", {class: "cards compact"},
      make("thead", {}, make("tr", {}, make("th", {scope: "col", class: "num"}, "#"), make("th", {scope: "col"}, "State"), make("th", {scope: "col"}, "Trial"),
        names.map(name => make("th", {scope: "col", class: "num"}, name.replaceAll("_", " "))))),
      make("tbody", {}, page.jobs.map(job => make("tr", {}, make("td", {class: "num", "data-label": "#"}, job.trialIndex || 0), make("td", {"data-label": "State"}, pill(job.state)),
        make("td", {"data-label": "Trial"}, jobLink(job), job.pending ? make("span", {class: "sub why"}, job.pending.message) : null),
        names.map(name => make("td", {class: "num", "data-label": name}, number(values(job)[name]))))))),
    page.total > page.jobs.length ? make("p", {class: "note"}, page.jobs.length + " of " + page.total + " trials") : null);
  }

  remove() {
    this.chart.remove();
  }
}
