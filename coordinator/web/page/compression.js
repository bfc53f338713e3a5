// What quantized communication does to each type of layer: bits, bytes saved, error; and what masks stop in training.
import {Chart} from "./chart.js";
import {fill, make, meter} from "./dom.js";
import {bytes, number} from "./format.js";

const BITS = "bits_";
const ERROR = "quant_nmse_";
const MASKED = "masked_fraction_";

export const NAMES = name => name.startsWith(BITS) || name.startsWith(ERROR) || name.startsWith(MASKED) ||
  ["compression_ratio", "comm_bytes", "comm_phase1_bytes", "comm_phase2_bytes", "comm_seconds", "comm_exposed_seconds", "plan_epoch"].includes(name);

export class Compression {
  constructor() {
    this.charts = {
      ratio: new Chart({title: "Compression ratio", zero: true}),
      error: new Chart({title: "Quantization error by layer type", log: true}),
      bits: new Chart({title: "Bits by layer type", zero: true}),
      masked: new Chart({title: "Masked gradient elements", zero: true}),
    };
    this.facts = make("dl", {class: "facts"});
    this.body = make("tbody", {});
    this.table = make("table", {class: "cards compact"},
      make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "Layer type"), make("th", {scope: "col", class: "wide"}, "Bits of 32"),
        make("th", {scope: "col", class: "num"}, "Bits"), make("th", {scope: "col", class: "num"}, "Smaller by"), make("th", {scope: "col", class: "num"}, "Relative error"))), this.body);
    this.element = make("section", {hidden: true, "aria-label": "Compression"}, make("h2", {}, "Compression by layer"), this.facts, this.table,
      make("div", {class: "charts"}, Object.values(this.charts).map(chart => chart.element)));
  }

  // newest: values by name; curves: name -> points
  set(newest, curves, marks) {
    const of = prefix => Object.keys({...newest, ...Object.fromEntries(curves)}).filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length)).sort();
    const last = name => newest[name] !== undefined ? newest[name] : curves.has(name) && curves.get(name).length ? curves.get(name)[curves.get(name).length - 1][1] : undefined;
    const types = [...new Set([...of(BITS), ...of(ERROR)])].sort();
    fill(this.body, types.map(type => {
      const bits = last(BITS + type);
      return make("tr", {}, make("td", {"data-label": "Layer type"}, make("b", {}, type)),
        make("td", {class: "wide", "data-label": "Bits of 32"}, bits === undefined ? "–" : meter(bits / 32, number(bits) + " of 32 bits", "")),
        make("td", {class: "num", "data-label": "Bits"}, number(bits, 3)),
        make("td", {class: "num", "data-label": "Smaller by"}, bits ? number(32 / bits, 3) + "×" : "–"),
        make("td", {class: "num", "data-label": "Relative error"}, number(last(ERROR + type), 3)));
    }));
    this.table.hidden = types.length === 0;
    const facts = [["Compression ratio", last("compression_ratio"), x => number(x, 3) + "×"], ["Sent a step by a rank", last("comm_bytes"), bytes],
      ["Exchange a step", last("comm_seconds"), x => number(x * 1000, 3) + " ms"], ["of it waited for", last("comm_exposed_seconds"), x => number(x * 1000, 3) + " ms"],
      ["Plans so far", last("plan_epoch"), x => number(x, 3)]];
    fill(this.facts, facts.filter(([, value]) => value !== undefined).map(([label, value, text]) => make("div", {}, make("dt", {}, label), make("dd", {}, text(value)))));
    const series = (prefix, names) => names.map(name => ({label: name.replaceAll("_", " "), points: curves.get(prefix + name) || []}));
    this.charts.ratio.set([{label: "compression ratio", points: curves.get("compression_ratio") || []}], marks);
    this.charts.error.set(series(ERROR, of(ERROR)), marks);
    this.charts.bits.set(series(BITS, of(BITS)), marks);
    this.charts.masked.set(series(MASKED, of(MASKED)), marks);
    this.element.hidden = types.length === 0 && last("compression_ratio") === undefined && of(MASKED).length === 0;
  }

  remove() {
    for (const chart of Object.values(this.charts)) chart.remove();
  }
}
