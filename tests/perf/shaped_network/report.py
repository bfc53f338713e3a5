#!/usr/bin/env python3
"""Tables (Markdown, to standard output) and plots (SVG, into --plots) from the lines that measure.py wrote."""
import argparse
import collections
import json
import pathlib
import statistics

from jobs import LONG

COLOURS = ["#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860"]
FULL = "fp32"


def rate_name(rate):
    return f"{rate} Mbit/s" if rate else "unshaped"


def predicted(run, base, compute):
    """Speed-up by quantized-comm.md 2.11: (Tc + 8 bytes / w) / (Tc + Tq + 8 bytes_q / w), w = 0.93 of the link's rate."""
    w = 0.93e6 * run["rate"]
    full = compute + 8 * base["comm_bytes"] / w
    return full / (compute + run["quant_seconds"] + 8 * run["comm_bytes"] / w)


def speed_tables(runs, plots):
    groups = collections.defaultdict(dict)
    for run in runs:
        groups[run["kind"], run["workers"]].setdefault(run["rate"], {})[run["codec"]] = run
    for (kind, workers), by_rate in groups.items():
        codecs = list(dict.fromkeys(codec for row in by_rate.values() for codec in row))
        unshaped = by_rate.get(None, {}).get(FULL)
        compute = unshaped["step_seconds"] - unshaped["comm_exposed_seconds"] if unshaped else None
        print(f"\n### {kind}, {workers} workers\n")
        if compute:
            print(f"Computation of a step: {compute:.3f} s (unshaped fp32 step less its exposed exchange).\n")
        print("Step time in s; in brackets the speed-up against fp32 at that rate, and what the model predicts.\n")
        print("| link | exchange / computation, fp32 | " + " | ".join(codecs) + " |")
        print("|---" * (2 + len(codecs)) + "|")
        series = collections.defaultdict(list)
        for rate, row in by_rate.items():
            base = row.get(FULL)
            ratio = f"{(base['step_seconds'] - compute) / compute:.1f}" if base and compute else "-"
            cells = []
            for codec in codecs:
                run = row.get(codec)
                if run is None:
                    cells.append("-")
                    continue
                cell = f"{run['step_seconds']:.3f}"
                if base and codec != FULL:
                    gain = base["step_seconds"] / run["step_seconds"]
                    series[codec].append((rate_name(rate), gain))
                    model = f"; {predicted(run, base, compute):.2f}" if rate and compute else ""
                    cell += f" ({gain:.2f}x{model})"
                cells.append(cell)
            print(f"| {rate_name(rate)} | {ratio} | " + " | ".join(cells) + " |")
        print("\nBytes a step and rank (payload), ratio to fp32, bytes on the link / payload, time in the codec:\n")
        print("| codec | payload | ratio | link / payload | codec s |\n|---|---|---|---|---|")
        for codec in codecs:
            some = [row[codec] for row in by_rate.values() if codec in row]
            payload = statistics.median(run["comm_bytes"] for run in some)
            full = statistics.median(row[FULL]["comm_bytes"] for row in by_rate.values() if FULL in row)
            # What the job sends beside gradients (logs, metrics, heartbeats) is on the link too: the largest share is
            # the truth for the smallest payload.
            low, high = (f(run["link_bytes"] / run["payload_bytes"] for run in some) for f in (min, max))
            print(f"| {codec} | {payload:,.0f} | {full / payload:.2f} | {low:.3f} to {high:.3f} | "
                  f"{statistics.median(run['quant_seconds'] for run in some):.3f} |")
        bars(plots / f"speedup-{kind}-{workers}.svg", f"Speed-up against fp32, {kind}, {workers} workers", series)


def time_to_loss(runs):
    """Runs of one kind, rate and worker count with different codecs: time until the loss that fp32 ended with."""
    groups = collections.defaultdict(dict)
    for run in runs:
        groups[run["kind"], run["workers"], run["rate"], run["steps"]][run["codec"]] = run
    for (kind, workers, rate, steps), row in groups.items():
        if FULL not in row or len(row) < 2:
            continue
        if kind == "qoda_gan":
            game_table(workers, rate, steps, row)
            continue
        goal = smoothed(row[FULL]["losses"])[-1]
        print(f"\n### Time to the loss that fp32 has after {steps} steps ({goal:.4f}): {kind}, {workers} workers, "
              f"{rate_name(rate)}\n\n| codec | steps | seconds | speed-up |\n|---|---|---|---|")
        base = None
        for codec, run in row.items():
            losses = smoothed(run["losses"])
            reached = next((i + 1 for i, value in enumerate(losses) if value <= goal), None)
            if reached is None:
                print(f"| {codec} | not within {steps} (at {losses[-1]:.4f}) | - | - |")
                continue
            seconds = run["train_seconds"] * reached / len(losses)
            base = base or seconds
            print(f"| {codec} | {reached} | {seconds:.1f} | {base / seconds:.2f} |")


def game_table(workers, rate, steps, row):
    """A game's losses do not fall to a goal; so the time of equally many updates, and what came of them."""
    print(f"\n### {steps} updates of qoda_gan, {workers} workers, {rate_name(rate)}\n")
    print("| codec | seconds | speed-up | sliced Wasserstein distance |\n|---|---|---|---|")
    for codec, run in row.items():
        print(f"| {codec} | {run['train_seconds']:.1f} | {row[FULL]['train_seconds'] / run['train_seconds']:.2f} | "
              f"{run['values'].get('sliced_wasserstein', float('nan')):.4f} |")


def smoothed(losses, window=10):
    return [statistics.fmean(losses[max(0, i + 1 - window):i + 1]) for i in range(len(losses))]


def loss_table(runs):
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for run in runs:
        groups[run["kind"], run["workers"], run["steps"]][run["codec"]].append(run)
    for (kind, workers, steps), by_codec in groups.items():
        is_game = kind != "pretrain"
        what = "Sliced Wasserstein distance" if is_game else "Loss (mean of the last 10)"
        quality = lambda run: run["values"]["sliced_wasserstein"] if is_game else smoothed(run["losses"])[-1]
        print(f"\n### {what} after {steps} steps: {kind}, {workers} workers\n")
        print("| codec | seeds | mean | standard deviation | against fp32 |" + (" modes covered |" if is_game else ""))
        print("|---" * (6 if is_game else 5) + "|")
        base = statistics.fmean(map(quality, by_codec[FULL])) if FULL in by_codec else None
        for codec, same in by_codec.items():
            values = [quality(run) for run in same]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.fmean(values)
            difference = f"{mean - base:+.4f}" if base is not None else "-"
            modes = ", ".join(f"{run['values'].get('modes_covered', 0):.0f}" for run in same)
            print(f"| {codec} | {len(values)} | {mean:.4f} | {spread:.4f} | {difference} |" +
                  (f" {modes} |" if is_game else ""))


def bars(path, title, series):
    """Grouped bars: series = {codec: [(group, height)]}."""
    groups = list(dict.fromkeys(group for values in series.values() for group, _ in values))
    if not groups:
        return
    width, height, left, bottom, top = 760, 360, 46, 60, 40
    highest = max(value for values in series.values() for _, value in values) * 1.1
    slot = (width - left - 10) / len(groups)
    bar = slot * 0.8 / len(series)
    y = lambda value: height - bottom - (height - bottom - top) * value / highest
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>', f'<text x="{left}" y="22" font-size="15">{title}</text>']
    tick = 1 if highest < 8 else 2 if highest < 16 else 5
    for value in range(0, int(highest) + 1, tick):
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                   f'stroke="{"#888" if value == 1 else "#ddd"}"/>')
        out.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}x</text>')
    for i, (codec, values) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        for group, value in values:
            x = left + slot * (groups.index(group) + 0.1) + bar * i
            out.append(f'<rect x="{x:.1f}" y="{y(value):.1f}" width="{bar * 0.92:.1f}" height="{y(0) - y(value):.1f}" '
                       f'fill="{colour}"><title>{codec}, {group}: {value:.2f}x</title></rect>')
        out.append(f'<rect x="{left + 130 * i}" y="{height - 22}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{left + 130 * i + 17}" y="{height - 12}">{codec}</text>')
    for i, group in enumerate(groups):
        out.append(f'<text x="{left + slot * (i + 0.5):.1f}" y="{height - bottom + 18}" text-anchor="middle">{group}</text>')
    out.append("</svg>\n")
    path.write_text("\n".join(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--plots", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    runs = [json.loads(line) for path in args.results for line in open(path)]
    speeds = [run for run in runs if run["what"] == "speed"]
    # Long runs are for the time to a loss, short ones for the time of a step.
    long = [run for run in speeds if run["steps"] >= LONG]
    speed_tables([run for run in speeds if run["steps"] < LONG], args.plots)
    time_to_loss(long)
    loss_table([run for run in runs if run["what"] == "loss"])


if __name__ == "__main__":
    main()
