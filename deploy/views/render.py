#!/usr/bin/python3
"""Writes what follows from one description: of deploy/views/views.yaml the Grafana dashboards and the consoles of
Prometheus, of deploy/prometheus/rules/*.yml the PrometheusRule for Kubernetes.

  deploy/views/render.py           # write
  deploy/views/render.py --check   # say what is out of date, and fail
"""
import glob
import html
import json
import os
import re
import sys

import yaml

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
GRAFANA_UNITS = {"short": "short", "seconds": "s", "bytes": "bytes", "bytes/s": "Bps", "per second": "cps",
                 "ratio": "percentunit", "step": "none"}
# Where the choices of a variable come from: metric and label.
VARIABLES = {"job": ("trainyard_step", "job"), "queue": ("trainyard_jobs", "queue")}
EVERYTHING = ".+"


def views():
    with open(os.path.join(ROOT, "views", "views.yaml"), encoding="utf-8") as file:
        return yaml.safe_load(file)["boards"]


# ---- Grafana ----

def grafana_panel(number, panel, place):
    x, y, width, height = place
    over_time = panel["kind"] == "lines"
    source = {"type": "prometheus", "uid": "${datasource}"}
    made = {
        "id": number,
        "title": panel["title"],
        "type": {"lines": "timeseries", "value": "stat", "table": "table"}[panel["kind"]],
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": GRAFANA_UNITS[panel["unit"]], "min": 0} if panel["unit"] == "ratio"
                        else {"unit": GRAFANA_UNITS[panel["unit"]]}, "overrides": []},
        "targets": [{
            "refId": chr(ord("A") + i),
            "datasource": source,
            "expr": query["expr"].replace("$rate", "$__rate_interval"),
            "legendFormat": query["legend"],
            "instant": not over_time,
            "range": over_time,
            "format": "table" if panel["kind"] == "table" else "time_series",
        } for i, query in enumerate(panel["queries"])],
    }
    if panel["kind"] == "lines":
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                           "tooltip": {"mode": "multi", "sort": "desc"}}
    elif panel["kind"] == "value":
        made["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "value_and_name"}
    else:
        made["transformations"] = [{"id": "merge", "options": {}},
                                   {"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return made


def grafana(board):
    panels, x, y = [], 0, 0
    for number, panel in enumerate(board["panels"], 1):
        width, height = (12, 8) if panel["kind"] != "value" else (6, 4)
        if x + width > 24 or (panels and panels[-1]["gridPos"]["h"] != height and x > 0):
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(grafana_panel(number, panel, (x, y, width, height)))
        x += width
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}]
    for name in board.get("variables", []):
        metric, label = VARIABLES[name]
        query = "label_values(%s, %s)" % (metric, label)
        variables.append({"name": name, "label": name.capitalize(), "type": "query", "datasource": source,
                          "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
                          "multi": True, "includeAll": True, "allValue": EVERYTHING,
                          "current": {"text": "All", "value": "$__all"}})
    return json.dumps({
        "uid": board["uid"],
        "title": "Trainyard / " + board["title"],
        "description": board["about"],
        "tags": ["trainyard"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["trainyard"], "title": "Trainyard", "asDropdown": True}],
        "templating": {"list": variables},
        "panels": panels,
    }, indent=1) + "\n"


# ---- consoles ----

def console_value(panel):
    """Rows that the server fills in."""
    rows = []
    for query in panel["queries"]:
        expression = query["expr"].replace("$rate", "5m")
        used = re.findall(r"\$(\w+)", expression)
        assert "`" not in expression and "%" not in expression, expression
        if used:
            expression = "(printf `%s` %s)" % (re.sub(r"\$\w+", "%s", expression), " ".join("$" + name for name in used))
        else:
            expression = "`%s`" % expression
        legend = re.sub(r"\{\{(\w+)\}\}", r"{{ .Labels.\1 }}", query["legend"])
        shown = {"ratio": "humanizePercentage .Value", "seconds": "humanizeDuration .Value",
                 "bytes": "humanize1024 .Value", "step": 'printf "%.0f" .Value'}.get(panel["unit"], "humanize .Value")
        rows.append("{{ range query %s | sortByLabel \"instance\" }}<tr><td>%s</td><td>{{ %s }}</td></tr>{{ end }}" %
                    (expression, legend, shown))
    return "<table>%s</table>" % "\n".join(rows)


def console_name(board):
    return board["uid"].replace("trainyard-", "") + ".html"


def console(board, boards):
    out = ["{{/* Made by deploy/views/render.py of views.yaml. */}}"]
    for name in board.get("variables", []):
        out.append('{{ $%s := or .Params.%s "%s" }}' % (name, name, EVERYTHING))
    out.append('{{ template "trainyard_head" "%s" }}' % board["title"])
    out.append("<nav>%s</nav>" % "".join(
        '<a href="%s"%s>%s</a>' % (console_name(other), ' class="here"' if other is board else "", other["title"])
        for other in boards))
    out.append("<p>%s</p>" % html.escape(board["about"]))
    out.append('<form id="choices">')
    for name in board.get("variables", []):
        metric, label = VARIABLES[name]
        out.append('<label>%s <select name="%s"><option value="%s">all</option>{{ range query `count by (%s) (%s)` | '
                   'sortByLabel "%s" }}<option{{ if eq $%s .Labels.%s }} selected{{ end }}>{{ .Labels.%s }}</option>'
                   "{{ end }}</select></label>" % (name, name, EVERYTHING, label, metric, label, name, label, label))
    out.append('<label>range <select name="range"><option>15m</option><option selected>1h</option><option>6h</option>'
               "<option>24h</option><option>168h</option></select></label></form>")
    out.append('<main>')
    for panel in board["panels"]:
        title = html.escape(panel["title"])
        if panel["kind"] == "lines":
            queries = html.escape(json.dumps(panel["queries"]).replace("{{", "[[").replace("}}", "]]"), quote=True)
            out.append('<section class="lines" data-unit="%s" data-queries="%s"><h2>%s</h2><div></div></section>' %
                       (panel["unit"], queries, title))
        else:
            out.append('<section class="%s"><h2>%s</h2>%s</section>' % (panel["kind"], title, console_value(panel)))
    out.append('</main>\n{{ template "trainyard_tail" }}')
    return "\n".join(out) + "\n"


# ---- Kubernetes ----

class Plain(yaml.SafeDumper):
    """Texts of several lines as blocks."""


Plain.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def prometheus_rule():
    groups = []
    for path in sorted(glob.glob(os.path.join(ROOT, "prometheus", "rules", "*.yml"))):
        with open(path, encoding="utf-8") as file:
            groups += yaml.safe_load(file)["groups"]
    labels = {"app.kubernetes.io/name": "trainyard", "app.kubernetes.io/part-of": "trainyard"}
    return "# Made by deploy/views/render.py of deploy/prometheus/rules.\n" + yaml.dump({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "trainyard", "labels": labels},
        "spec": {"groups": groups},
    }, Dumper=Plain, sort_keys=False, width=110)


def main():
    boards = views()
    made = {"kubernetes/monitoring/rules.yaml": prometheus_rule()}
    for board in boards:
        made["grafana/%s.json" % board["uid"]] = grafana(board)
        made["prometheus/consoles/" + console_name(board)] = console(board, boards)
    stale = 0
    for name, text in made.items():
        path = os.path.normpath(os.path.join(ROOT, name))
        old = open(path, encoding="utf-8").read() if os.path.exists(path) else None
        if old == text:
            continue
        stale += 1
        print(("out of date: " if "--check" in sys.argv else "wrote ") + os.path.relpath(path))
        if "--check" not in sys.argv:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    if "--check" in sys.argv and stale:
        sys.exit("run deploy/views/render.py")


if __name__ == "__main__":
    main()
