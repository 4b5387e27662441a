# SPDX-License-Identifier: MIT
"""bench/poll_report.py: rounds into figures, figures into text, JSON and Markdown.

A figure is {"median", "least", "most"} over the rounds. A goal's value is the median of the ratios (or differences) within a
round, as only what ran side by side compares.
"""
import json, statistics

from poll_cases import REACHED


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)} if values else None


def reached(load, row):
    return not load.rate or row["iops"] >= REACHED * load.rate or row["left"] == 0


def figure(load, row, name):
    """One number of one round; None where it means nothing: latencies of a queue that grew till the end."""
    if name in ("client", "server", "total"):
        cpu = {"client": row["client_cpu"], "server": row["server_cpu"]}
        return cpu.get(name, sum(cpu.values()))
    if name == "notifications_per_request":
        return row["sent_per_request"] + row["received_per_request"]
    return row[name]


def row_of(load, mode, rounds):
    good = [r for r in rounds if r]
    of = lambda name: spread([figure(load, r, name) for r in good])
    loaded = load.pattern != "idle"
    return {
        "mode": mode, "pattern": load.pattern, "rate": load.rate, "devices": load.devices, "cores": load.cores, "rounds": len(good),
        **{f: of(f) if loaded else None for f in ("iops", "p50_us", "p99_us", "p999_us", "notifications_per_request", "sent_per_request", "received_per_request")},
        "cpu": {f: of(f) for f in ("client", "server", "total")}, "reached": all(reached(load, r) for r in good),
    }


def number(x):
    return "-" if x is None else f"{x / 1e6:.2f}M" if x >= 1e6 else f"{x / 1e3:.1f}k" if x >= 1e4 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.4f}"


COLUMNS = (("IOPS", "iops"), ("p50 us", "p50_us"), ("p99 us", "p99_us"), ("p99.9 us", "p999_us"), ("CPU server", "server"), ("client", "client"),
           ("both", "total"), ("notified", "notifications_per_request"))


def cells(row):
    of = {**row, **row["cpu"]}
    text = [number(of[key]["median"] if of[key] else None) for _, key in COLUMNS]
    return [text[0] + ("" if row["reached"] else " (rate not reached)"), *text[1:]]


def load_text(load, rows):
    """The table of a load, a line for each mode."""
    lines = [f"{load.name():<40}" + "".join(f"{h:>12}" for h, _ in COLUMNS)]
    for mode, rounds in rows.items():
        if any(rounds):
            row = row_of(load, mode, rounds)
            text = cells(dict(row, reached=True))
            lines.append(f"  {mode:<38}" + "".join(f"{c:>12}" for c in text) + ("" if row["reached"] else "  rate not reached"))
    return "\n".join(lines) + "\n"


def goal_values(goal, rows):
    pairs = [(a, b) for a, b in zip(rows.get(goal.ours, ()), rows.get(goal.to, ())) if a and b]
    if goal.figure.startswith("p"):  # queues that grew till the end have no latency
        pairs = [p for p in pairs if all(reached(goal.load, r) for r in p)]
    of = lambda row: figure(goal.load, row, goal.figure)
    return [of(a) - of(b) if goal.minus else of(a) / of(b) for a, b in pairs if goal.minus or of(b)]


def goal_rows(goals, results, beside):
    rows = []
    for g in goals:
        v = goal_values(g, (beside if g.beside else results).get(g.load, {}))
        if v:
            m = statistics.median(v)
            rows.append({"name": g.name, "must": g.text(), "got": m, "least": min(v), "most": max(v), "met": g.met(m)})
        elif g.load in results:
            rows.append({"name": g.name, "must": g.text(), "got": None, "met": None, "why": "the rate was not reached in any round, or a mode did not run"})
    return rows


def goals_text(rows):
    wide = max((len(r["name"]) for r in rows), default=0)
    word = {True: "met", False: "MISSED", None: "not judged"}
    got = lambda r: "-" if r["got"] is None else f"{r['got']:.4f} ({r['least']:.4f} to {r['most']:.4f})"
    return "\n".join(f"{r['name']:<{wide}}  {r['must']:<28}{got(r):<34}{word[r['met']]}" for r in rows)


def result(info, run, goals, settings):
    rows = [row_of(l, m, rounds) for l, modes in run.results.items() for m, rounds in modes.items() if any(rounds)]
    return {"kind": "poll", "commit": info["commit"], "date": info["date"], "machine": info, **settings, "rows": rows,
            "goals": goal_rows(goals, run.results, run.beside), "left_out": run.left_out}


def markdown(result):
    lines = ["# Interrupts and polling", "", f"{result['date']}, commit {result['commit']}, seed {result['seed']}, {result['rounds']} rounds of "
             f"{result['seconds_each']} s, storage {result['storage']}{', QUICK' if result['quick'] else ''}. CPU: processors busy. notified: events per "
             "request, both ways. Medians.", ""]
    lines += [f"* {k}: {v}" for k, v in result["machine"].items()]
    lines += ["", "## Goals", "", "| | must | got | |", "|---|---|---|---|"]
    word = {True: "met", False: "**missed**", None: "not judged"}
    for g in result["goals"]:
        got = "–" if g["got"] is None else f"{g['got']:.3f}"
        lines.append(f"| {g['name']} | {g['must']} | {got} | {word[g['met']]} |")
    place = None
    for r in result["rows"]:
        if place != (r["cores"], r["devices"]):
            place = r["cores"], r["devices"]
            lines += ["", f"## {r['devices']} disk{'s' * (r['devices'] > 1)}, {r['cores']} core{'s' * (r['cores'] > 1)}", "",
                      "| arrivals | mode | " + " | ".join(h for h, _ in COLUMNS) + " |", "|---|---|" + "---:|" * len(COLUMNS)]
        arrivals = r["pattern"] + (f" {r['rate']}/s" if r["rate"] else "")
        lines.append(f"| {arrivals} | {r['mode']} | " + " | ".join(cells(r)) + " |")
    lines += ["", *(f"Left out: {x['load']}, {x['mode']}: {x['why']}" for x in result["left_out"])]
    return "\n".join(lines).rstrip() + "\n"


def write_files(directory, result):
    with open(f"{directory}/poll.json", "w") as f:
        json.dump(result, f, indent=1)
    with open(f"{directory}/poll.md", "w") as f:
        f.write(markdown(result))
    return goals_text(result["goals"]) or "no goal looks at these loads"
