# SPDX-License-Identifier: MIT
"""bench/store_report.py: rounds of the stores' cases into figures, figures into text and JSON.

A figure is {"median", "least", "most"} over the rounds. A ratio is ours over the better reference's within a round, as only what
ran side by side compares, and the median of these over the rounds.
"""
import json, statistics

from block_report import count_text
from store_cases import MUST, OURS, REFERENCES, TITLES, growths

FIGURES = ("per_s", "events_per_s", "p50_us", "p99_us", "p999_us", "server_us", "client_us", "client_busy", "server_busy")
COLUMNS = (("p50 us", "p50_us"), ("p99 us", "p99_us"), ("p99.9 us", "p999_us"), ("server us", "server_us"), ("client us", "client_us"),
           ("srv busy", "server_busy"), ("cl busy", "client_busy"))
CLIENT_BOUND = 0.95  # of its processor
EXPLAINED = """A second's operations (of a fan-out: events that arrive), least and most of the rounds; latency of an operation; processor time of server and
of client for one, how busy each was. A client that is busy all the time is what the row measures: then the server's processor time says
more. ×: ours over the better of the references, by what is done in a second, and by the server's processor time; median of the rounds'
ratios (least-most)."""


def values(rounds, figure):
    return [r[figure] for r in rounds if r and figure in r]


def spread(v):
    return {"median": statistics.median(v), "least": min(v), "most": max(v)} if v else None


def ratios(case, peers):
    """[ours over the better reference] of each round, by rate and by the server's processor time; of two references, or the one there is."""
    rate, cpu = [], []
    for round_, ours in enumerate(peers.get(OURS, ())):
        theirs = [peers[r][round_] for r in REFERENCES if r in peers and peers[r][round_]]
        if ours and theirs and case.figure in ours:
            rate.append(ours[case.figure] / max(1e-9, max(t[case.figure] for t in theirs)))
            cpu.append(min(t["server_us"] for t in theirs) / max(1e-9, ours["server_us"]))
    return rate, cpu


def row(case, peer, rounds, learned):
    return {"case": case.name, "peer": peer, "rounds": len([r for r in rounds if r]), **{f: spread(values(rounds, f)) for f in FIGURES}, "memory": learned}


def ratio_text(v):
    return f"{statistics.median(v):.2f} ({min(v):.2f}-{max(v):.2f})" if v else "-"


def number(x):
    return "-" if x is None else f"{x:.0f}" if x >= 1000 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.01 or not x else f"{x:.5f}"


def case_text(case, peers, learned):
    lines = [f"{case.name}: {case.title}"]
    if case.kind == "idle":
        lines += [f"  {TITLES[peer]:<12}{number(statistics.median(values(r, 'server_busy')) * 100)} % of a processor" for peer, r in peers.items() if values(r, "server_busy")]
        return "\n".join(lines) + "\n"
    lines[0] = f"{lines[0]:<83}" + "".join(f"{h:>11}" for h, _ in COLUMNS)
    for peer, rounds in peers.items():
        v = values(rounds, case.figure)
        if v:
            cells = [spread(values(rounds, f)) for _, f in COLUMNS]
            text = f"  {TITLES[peer]:<12}{count_text(statistics.median(v)):>9} ({count_text(min(v))}-{count_text(max(v))})"
            lines.append(f"{text:<83}" + "".join(f"{number(c and c['median']):>11}" for c in cells))
    for what in ("nodes", "watches"):
        of = [(TITLES[p], learned[p][what]) for p in peers if learned.get(p) and what in learned[p]]
        if of:
            lines.append(f"  bytes for one of the {what}: " + ", ".join(f"{t} {m['bytes_each']:.0f} ({count_text(m['made_per_s'])}/s made)" for t, m in of))
    rate, cpu = ratios(case, peers)
    if rate:
        lines.append(f"  × {ratio_text(rate)}, by processor time {ratio_text(cpu)}")
    return "\n".join(lines) + "\n"


def client_bound(rounds):
    busy = values(rounds, "client_busy")
    return bool(busy) and statistics.median(busy) >= CLIENT_BOUND


def goal_rows(cases, results, growth):
    rows = []
    for case in cases:
        rate, cpu = ratios(case, results.get(case.name, {}))
        if case.goal and rate:
            rows.append({"goal": case.title, "case": case.name, "must": MUST, "rate": spread(rate), "cpu": spread(cpu),
                         "met": statistics.median(rate) >= MUST, "client_bound": client_bound(results[case.name][OURS])})
    for g in growths():
        if growth.get(g.title):
            got = spread(growth[g.title])
            rows.append({"goal": g.title, "case": "growth", "must": g.must, "rate": None, "cpu": got, "met": got["median"] >= g.must, "client_bound": False})
    return rows


def goals_text(rows):
    if not rows:
        return "no goal: it takes ours and a reference"
    wide = max(len(r["goal"]) for r in rows)
    lines = [f"{'goal':<{wide}}{'must':>6}  {'by rate':<24}{'by processor time':<24}"]
    for r in rows:
        text = lambda s: f"{s['median']:.2f} ({s['least']:.2f}-{s['most']:.2f})" if s else "-"
        word = "met" if r["met"] else "MISSED"
        lines.append(f"{r['goal']:<{wide}}{r['must']:>6}  {text(r['rate']):<24}{text(r['cpu']):<24}{word}" + ", client-bound" * r["client_bound"])
    return "\n".join(lines)


def result(info, run, cases, settings):
    rows = [row(c, peer, rounds, run.learned.get((c.name, peer))) for c in cases for peer, rounds in run.results.get(c.name, {}).items()
            if any(rounds)]
    return {"kind": "store", "commit": info["commit"], "date": info["date"], "machine": info, **settings, "rows": rows,
            "goals": goal_rows(cases, run.results, run.growth), "left_out": run.left_out, "rounds": run.results}


def write_files(directory, result, text):
    with open(f"{directory}/store.json", "w") as f:
        json.dump(result, f, indent=1)
    with open(f"{directory}/store.txt", "w") as f:
        f.write(text)
