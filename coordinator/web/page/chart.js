// Line charts in SVG: several series over steps, a crosshair that follows pointer and arrow keys, and a summary in words
// for those who do not see them.
import {fill, make, setText, svg} from "./dom.js";
import {count, number} from "./format.js";

const HEIGHT = 190;
const LEFT = 54;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;

// About `wanted` round values that cover [low, high].
export function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) values.push(Number((i * step).toPrecision(12)));
  return values;
}

// For many points on few pixels: the lowest and highest of each pixel, so that spikes stay.
function thin(points, pixels) {
  if (points.length <= pixels * 2) return points;
  const out = [];
  const size = points.length / pixels;
  for (let i = 0; i < pixels; ++i) {
    const part = points.slice(Math.floor(i * size), Math.floor((i + 1) * size));
    let low = part[0], high = part[0];
    for (const point of part) {
      if (point[1] < low[1]) low = point;
      if (point[1] > high[1]) high = point;
    }
    out.push(...(low[0] <= high[0] ? [low, high] : [high, low]));
  }
  return [...new Set(out)];
}

export class Chart {
  // series: [{name, label, dots}]; options: {title, unit, log: may be shown on a logarithmic axis, xLabel}
  constructor(options) {
    this.options = options;
    this.series = [];
    this.marks = [];
    this.isLog = false;
    this.at = null;
    this.plot = svg("svg", {class: "plot", role: "img", tabindex: "0"});
    this.readout = make("output", {class: "readout"});
    this.legend = make("ul", {class: "keys"});
    this.logButton = options.log ? make("button", {type: "button", class: "quiet", "aria-pressed": "false", onclick: () => {
      this.isLog = !this.isLog;
      this.logButton.setAttribute("aria-pressed", String(this.isLog));
      this.draw();
    }}, "log") : null;
    this.element = make("figure", {class: "chart"},
      make("figcaption", {}, make("span", {class: "chart-title"}, options.title), this.readout, this.logButton), this.plot, this.legend);
    this.plot.addEventListener("pointermove", event => this.point(event.clientX - this.plot.getBoundingClientRect().left));
    this.plot.addEventListener("pointerleave", () => this.choose(null));
    this.plot.addEventListener("blur", () => this.choose(null));
    this.plot.addEventListener("keydown", event => this.key(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.plot);
  }

  // points of each: [[x, y], ...] in order of x; marks: [{x, label}]
  set(series, marks) {
    this.series = series.filter(one => one.points.length);
    this.marks = marks || [];
    this.xs = [...new Set(this.series.flatMap(one => one.points.map(point => point[0])))].sort((a, b) => a - b);
    fill(this.legend, this.series.length > 1 ? this.series.map((one, i) =>
      make("li", {}, make("span", {class: "key c" + i % 8, "aria-hidden": "true"}), one.label)) : []);
    this.element.hidden = this.series.length === 0;
    this.draw();
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width || !this.series.length) return;
    this.width = width;
    this.plot.setAttribute("viewBox", "0 0 " + width + " " + HEIGHT);
    const all = this.series.flatMap(one => one.points);
    const x0 = this.xs[0], x1 = this.xs[this.xs.length - 1];
    const positive = all.map(point => point[1]).filter(y => y > 0);
    const log = this.isLog && positive.length > 0;
    const value = y => log ? Math.log10(Math.max(y, Math.min(...positive))) : y;
    let low = Infinity, high = -Infinity;
    for (const point of all) {
      low = Math.min(low, value(point[1]));
      high = Math.max(high, value(point[1]));
    }
    if (this.options.zero && !log) low = Math.min(low, 0);
    const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
    if (!(this.options.zero && low === 0)) low -= room;
    high += room;
    this.x = x => x1 > x0 ? LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT) : (LEFT + width - RIGHT) / 2;
    this.y = y => TOP + (high - value(y)) / (high - low) * (HEIGHT - TOP - BOTTOM);
    const yTicks = log ? [...new Set(ticks(low, high, 4).map(t => Number((10 ** t).toPrecision(2))))] : ticks(low, high, 4);
    const grid = yTicks.map(t => svg("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: this.y(t), y2: this.y(t)}));
    const yLabels = yTicks.map(t => svg("text", {class: "tick", x: LEFT - 6, y: this.y(t) + 3.5, "text-anchor": "end"}, this.options.count ? count(t) : number(t, 3)));
    const xLabels = ticks(x0, x1, Math.max(2, Math.floor(width / 110))).filter(t => Number.isInteger(t)).map(t =>
      svg("text", {class: "tick", x: this.x(t), y: HEIGHT - 7, "text-anchor": this.x(t) > width - 30 ? "end" : "middle"}, count(t)));
    const marks = this.marks.filter(mark => mark.x >= x0 && mark.x <= x1).map(mark =>
      svg("line", {class: "mark", x1: this.x(mark.x), x2: this.x(mark.x), y1: TOP, y2: HEIGHT - BOTTOM}, svg("title", {}, mark.label)));
    const lines = this.series.map((one, i) => {
      const points = thin(one.points, width - LEFT - RIGHT);
      if (one.dots || points.length === 1) {
        return svg("g", {class: "dots c" + i % 8}, points.map(point => svg("circle", {cx: this.x(point[0]).toFixed(1), cy: this.y(point[1]).toFixed(1), r: 2.6})));
      }
      return svg("path", {class: "line c" + i % 8, d: points.map((point, n) =>
        (n ? "L" : "M") + this.x(point[0]).toFixed(1) + " " + this.y(point[1]).toFixed(1)).join("")});
    });
    this.cursor = svg("g", {class: "cursor"});
    fill(this.plot, grid, yLabels, xLabels, marks, lines, this.cursor);
    this.plot.setAttribute("aria-label", this.summary());
    this.choose(this.at);
  }

  summary() {
    return this.options.title + " over " + (this.options.xLabel || "steps") + ". " + this.series.map(one => {
      const first = one.points[0], last = one.points[one.points.length - 1];
      return one.label + ": " + number(first[1]) + " at " + first[0] + ", " + number(last[1]) + " at " + last[0];
    }).join("; ") + ". Arrow keys read single values.";
  }

  point(pixel) {
    if (!this.x || !this.xs.length) return;
    let best = null;
    for (const x of this.xs) if (best === null || Math.abs(this.x(x) - pixel) < Math.abs(this.x(best) - pixel)) best = x;
    this.choose(best);
  }

  key(event) {
    const stride = event.shiftKey ? 10 : 1;
    const now = this.at === null ? this.xs.length - 1 : this.xs.indexOf(this.at);
    const next = {ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: this.xs.length - 1}[event.key];
    if (event.key === "Escape") this.choose(null);
    if (next === undefined) return;
    event.preventDefault();
    this.choose(this.xs[Math.max(0, Math.min(this.xs.length - 1, next))]);
  }

  // Shows the values at x, or the newest ones.
  choose(x) {
    this.at = x;
    if (!this.cursor) return;
    const says = [];
    const parts = [];
    if (x !== null) parts.push(svg("line", {class: "hair", x1: this.x(x), x2: this.x(x), y1: TOP, y2: HEIGHT - BOTTOM}));
    this.series.forEach((one, i) => {
      const hit = x === null ? one.points[one.points.length - 1] : one.points.find(point => point[0] === x);
      if (!hit) return;
      if (x !== null) parts.push(svg("circle", {class: "hit c" + i % 8, cx: this.x(hit[0]), cy: this.y(hit[1]), r: 3.5}));
      says.push((this.series.length > 1 ? one.label + " " : "") + (this.options.count ? count(hit[1]) : number(hit[1])));
    });
    fill(this.cursor, parts);
    const text = says.slice(0, 3).join(" · ") + (says.length > 3 ? " …" : "");
    setText(this.readout, x === null ? text : (this.options.xLabel || "step").replace(/s$/, "") + " " + x + ": " + text);
  }

  remove() {
    this.observer.disconnect();
  }
}
