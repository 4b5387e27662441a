# SPDX-License-Identifier: MIT
"""bench/block_report.py: rounds into figures, figures into text, CSV, JSON and a picture.

`results` is {case name: {peer: [row or None for each round]}}. A figure is the median over the rounds; a ratio is the
median over the rounds of the two peers' ratio within a round, as only what ran side by side compares.
"""
import csv, json, statistics

import block_picture
from block_cases import goals

COLUMNS = (  # figure, heading, width, format
    ("gib_s", "GiB/s", 7, "{:.2f}"), ("p50_us", "p50 us", 9, "{:.1f}"), ("p99_us", "p99 us", 9, "{:.1f}"), ("p999_us", "p99.9 us", 10, "{:.1f}"),
    ("cpu_us_per_io", "CPU s/M", 9, "{:.2f}"), ("sent_per_io", "kicks", 8, "{:.4f}"), ("received_per_io", "events", 8, "{:.4f}"), ("others_cpu", "others", 7, "{:.2f}"),
)
REFERENCES = ("floor", "qsd-poll", "qsd-interrupt")
EXPLAINED = """IOPS, GiB/s and latencies are the client's. CPU s/M: processor seconds of client and server, io_uring's workers included, per million
requests (= us per request). kicks, events: notifications per request from and to the client. others: processors that everybody else
used meanwhile. / floor, / qsd-…: IOPS over theirs, median of the rounds' ratios (least-most). processors … ns apart: what a word takes from the first to
the last processor and back; where it differs between cases or rounds, so do all rows that poll."""


def values(rounds, figure):
    return [r[figure] for r in rounds if r and figure in r]


def median(rounds, figure):
    v = values(rounds, figure)
    return statistics.median(v) if v else None


def ratios(peers, name, to, figure="iops"):
    pairs = zip(peers.get(name, ()), peers.get(to, ()))
    return [a[figure] / b[figure] for a, b in pairs if a and b and b.get(figure)]


def count_text(n):
    return f"{n / 1e6:.2f}M" if n >= 1e6 else f"{n / 1e3:.1f}k" if n >= 1e3 else f"{n:.0f}"


def ratio_text(r):
    return f"{statistics.median(r):.2f} ({min(r):.2f}-{max(r):.2f})" if r else "-"


def others(results):
    """The processors that others used in the median measurement."""
    return median([row for peers in results.values() for rounds in peers.values() for row in rounds], "others_cpu") or 0.0


def references(peers):
    """What a table has ratios to: the floor, and the first of qemu-storage-daemon's rows."""
    here = [r for r in REFERENCES if values(peers.get(r, ()), "iops")]
    return here[:2] if here[:1] == ["floor"] else here[:1]


def case_text(case, peers, apart):
    """The table of a case, a line for each peer that has figures."""
    far = f"; processors {statistics.median(apart):.0f} ns apart ({min(apart)}-{max(apart)})" if apart else ""
    head = f"{'':<25}{'IOPS (least-most)':<25}" + "".join(f"{h:>{w}}" for _, h, w, _ in COLUMNS) + "".join(f"{'/ ' + r:>21}" for r in references(peers))
    lines = [f"{case.name}: {case.title}{far}", head]
    for name, rounds in peers.items():
        v = values(rounds, "iops")
        if not v:
            continue
        line = f"  {name:<23}{count_text(statistics.median(v))} ({count_text(min(v))}-{count_text(max(v))})"
        line = f"{line:<50}"
        for figure, _, width, form in COLUMNS:
            m = median(rounds, figure)
            line += f"{'-' if m is None else form.format(m):>{width}}"
        lines.append(line + "".join(f"{ratio_text(ratios(peers, name, r)):>21}" for r in references(peers)))
    return "\n".join(lines) + "\n"


def test_values(test, peers, name):
    if test.to:
        return ratios(peers, name, test.to, test.figure)
    return values(peers.get(name, ()), test.figure)


def measured_text(test, v):
    m = statistics.median(v)
    form = count_text if test.figure == "iops" and not test.to else (lambda x: f"{x:.3f}" if abs(x) < 0.1 else f"{x:.2f}")
    what = " CPU" if test.figure == "cpu_us_per_io" else ""
    return f"{form(m)}{' × ' + test.to if test.to else ''}{what}" + (f" ({form(min(v))}-{form(max(v))})" if len(v) > 1 else "")


def judge(goal, peers):
    """The best of the goal's candidates: (its name, [(test, values)]), or None where nothing was measured."""
    best = None
    for name in goal.ours:
        all_ = [(t, test_values(t, peers, name)) for t in goal.tests]
        got = [(t, v) for t, v in all_ if v]
        if not got:
            continue
        rank = (sum(t.met(statistics.median(v)) for t, v in got), statistics.median(got[0][1]) * (-1 if got[0][0].most else 1))
        if best is None or rank > best[0]:
            best = (rank, name, got, len(all_) - len(got))
    return best and best[1:]


def verdict(got, lacking):
    missed = [(t, statistics.median(v)) for t, v in got if not t.met(statistics.median(v))]
    if missed:
        return "missed by " + ", ".join(f"{abs(m / t.must - 1) * 100:.0f} %" for t, m in missed)
    if lacking:
        return "met as far as measured"
    aims = [(t, statistics.median(v)) for t, v in got if t.aim is not None]
    return "met, aim too" if aims and all(t.met(m, t.aim) for t, m in aims) else "met"


def goal_rows(results):
    rows = []
    for g in goals():
        must = ", ".join(t.text(t.must) for t in g.tests if t.must)
        aim = ", ".join(t.text(t.aim) for t in g.tests if t.aim is not None)
        row = {"goal": g.title, "case": g.case, "must": must, "aim": aim, "peer": "", "measured": "", "verdict": "not measured"}
        judged = judge(g, results.get(g.case, {}))
        if judged:
            name, got, lacking = judged
            row.update(peer=name, measured=", ".join(measured_text(t, v) for t, v in got), verdict=verdict(got, lacking))
        rows.append(row)
    return rows


def goals_text(rows):
    if not rows:
        return "none of the cases that goals look at"
    keys = ("goal", "must", "aim", "peer", "measured", "verdict")
    wide = {k: max(len(k), *(len(r[k]) for r in rows)) for k in keys}
    line = lambda r: "  ".join(f"{r[k]:<{wide[k]}}" for k in keys).rstrip()
    return "\n".join([line({k: k for k in keys}), *(line(r) for r in rows)]) + "\n"


def figures(case, peers):
    """A flat dictionary for each peer of a case: what CSV and JSON have."""
    for name, rounds in peers.items():
        good = [r for r in rounds if r]
        if not good:
            continue
        row = {"case": case.name, "op": "write" if case.write else "read", "qd": case.qd, "block_bytes": case.block_bytes, "image": case.image,
               "direct": int(case.direct), "threads": case.threads, "peer": name, "rounds": len(good), "done": sum(r["done"] for r in good),
               "iops": median(good, "iops"), "iops_min": min(values(good, "iops")), "iops_max": max(values(good, "iops"))}
        for figure in [c[0] for c in COLUMNS] + ["client_cpu_us_per_io", "syscalls_per_io"]:
            row[figure] = median(good, figure)
        for to in REFERENCES:
            r = ratios(peers, name, to)
            for key, of in (("", statistics.median), ("_min", min), ("_max", max)):
                row[f"ratio_{to}{key}".replace("-", "_")] = of(r) if r else None
        yield row


def write_files(directory, info, cases, run, text):
    rows = [row for c in cases for row in figures(c, run.results.get(c.name, {}))]
    table = goal_rows(run.results)
    with open(f"{directory}/block.txt", "w") as f:
        f.write(text)
    with open(f"{directory}/block.json", "w") as f:
        everything = {"machine": info, "left_out": run.left_out, "rows": rows, "goals": table, "apart_ns": run.apart_ns, "rounds": run.results}
        json.dump(everything, f, indent=1)
    if rows:
        with open(f"{directory}/block.csv", "w", newline="") as f:
            out = csv.DictWriter(f, rows[0].keys())
            out.writeheader()
            out.writerows(rows)
    return block_picture.draw(directory, info, rows)
