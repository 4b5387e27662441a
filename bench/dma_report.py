# SPDX-License-Identifier: MIT
"""bench/dma_report.py: rounds into figures, and figures into text, Markdown and dma.json.

`results` is {case name: {strategy: [row or None for each round]}}. A figure is {"median", "least", "most"} over the rounds; a
share of `none` is the ratio of requests per second within a round, as only what ran side by side compares.
"""
import json, statistics

from block_report import count_text
from dma_cases import EXPLAINED_CASES, STRATEGIES, cases, goals, parts

FIGURES = ("iops", "gib_s", "p50_us", "p99_us", "cpu_us_per_io", "client_cpu_us_per_io", "server_cpu_us_per_io", "cpu_s_per_gib", "bytes_copied_per_io",
           "syscalls_per_io", "server_syscalls_per_io", "client_syscalls_per_io", "maps_per_io", "pins_per_io", "iotlb_hit_rate")
plain = lambda x: "0" if not x else f"{x:.0f}" if x >= 100 else f"{x:.2f}" if x >= 0.01 else f"{x:.4f}"
COLUMNS = (  # figure, heading, width, how it is written
    ("gib_s", "GiB/s", 7, "{:.2f}".format), ("p50_us", "p50 us", 9, "{:.1f}".format), ("p99_us", "p99 us", 9, "{:.1f}".format),
    ("client_cpu_us_per_io", "client", 8, plain), ("server_cpu_us_per_io", "server", 8, plain), ("cpu_s_per_gib", "s/GiB", 7, plain),
    ("bytes_copied_per_io", "copied", 8, plain), ("syscalls_per_io", "calls", 7, plain), ("maps_per_io", "maps", 7, plain), ("pins_per_io", "pins", 7, plain),
    ("iotlb_hit_rate", "IOTLB", 7, "{:.3f}".format),
)
EXPLAINED = """Requests per second, GiB/s and latency are the client's. client, server: processor microseconds of each process a request, io_uring's workers
and the time that it spins included; s/GiB: processor seconds of both a GiB. For each request: copied: bytes that the strategy copied; calls: system calls of
both ends; maps: pages mapped through their grants, for iommu to bus addresses; pins: registrations of memory with the kernel. IOTLB: the share of translations that it
remembered. share of none: of its requests per second, the median of the rounds' ratios (least-most)."""


def spread(values):
    values = [v for v in values if v is not None]
    return {"median": statistics.median(values), "least": min(values), "most": max(values)} if values else None


def good(rounds):
    return [r for r in rounds if r]


def figure(rounds, name):
    return spread([r.get(name) for r in good(rounds)])


def pairs(peers, strategy, base="none"):
    return [(a, b) for a, b in zip(peers.get(strategy, ()), peers.get(base, ())) if a and b]


def share(peers, strategy):
    return spread([a["iops"] / b["iops"] for a, b in pairs(peers, strategy)])


def added_ns(peers, strategy):
    """What a request takes longer than with `none`."""
    return spread([1e9 / a["iops"] - 1e9 / b["iops"] for a, b in pairs(peers, strategy)])


def spread_text(f, form="{:.3f}".format):
    return f"{form(f['median'])} ({form(f['least'])}-{form(f['most'])})" if f else "-"


# ---- a case as text ----


def case_text(case, peers):
    lines = [f"{case.name}: {case.title}", f"{'':<12}{'IOPS (least-most)':<25}" + "".join(f"{h:>{w}}" for _, h, w, _ in COLUMNS) + f"{'share of none':>22}"]
    for name, rounds in peers.items():
        if not good(rounds):
            continue
        line = f"{'  ' + name:<12}{spread_text(figure(rounds, 'iops'), count_text):<25}"
        for key, _, width, form in COLUMNS:
            f = figure(rounds, key)
            line += f"{form(f['median']) if f else '-':>{width}}"
        lines.append(line + f"{spread_text(share(peers, name)):>22}" + "  (plain vectors)" * any(r["plain_vectors"] for r in good(rounds) if name != "none"))
    return "\n".join(lines) + "\n"


# ---- goals and explanations ----


def goal_rows(results):
    rows = []
    for g in goals():
        got = share(results.get(g.case, {}), g.strategy)
        rows.append({"name": g.name(), "strategy": g.strategy, "case": g.case, "must": g.must, "got": got and got["median"], "spread": got,
                     "met": got["median"] >= g.must if got else None})
    return rows


def goals_text(rows):
    verdict = lambda r: "not measured" if r["met"] is None else "met" if r["met"] else f"missed by {(1 - r['got'] / r['must']) * 100:.1f} %"
    return "\n".join(f"{r['name']:<46}{spread_text(r['spread']):<24}{verdict(r)}" for r in rows) + "\n"


def explanation_rows(results, primitives):
    """What the primitives predict that a strategy adds to a request of 4 KiB, beside what was measured."""
    ns = {p["name"]: p["ns"]["median"] for p in primitives}
    rows = []
    for case in (c for c in cases() if c.name in EXPLAINED_CASES and c.name in results):
        for strategy in STRATEGIES:
            made_of, measured = parts(strategy, case), added_ns(results[case.name], strategy)
            if made_of and measured:
                known = all(p in ns for p in made_of)
                rows.append({"case": case.name, "strategy": strategy, "parts": made_of, "predicted_ns": sum(ns[p] for p in made_of) if known else None,
                             "measured_ns": measured})
    return rows


def primitives_text(primitives):
    wide = max(len(p["name"]) for p in primitives)
    return "\n".join(f"  {p['name']:<{wide}} {spread_text(p['ns'], '{:.1f}'.format):>26} ns  {p['what']}" for p in primitives) + "\n"


def explanation_text(rows):
    lines, last = ["What the primitives say that a request costs more than with `none`, and what it did (ns, least-most):"], None
    for r in rows:
        lines += [f"{r['case']}"] if r["case"] != last else []
        last = r["case"]
        predicted = "?" if r["predicted_ns"] is None else f"{r['predicted_ns']:.0f}"
        lines.append(f"  {r['strategy']:<10}{predicted:>6} predicted  {spread_text(r['measured_ns'], '{:.0f}'.format):>22} measured   {' + '.join(r['parts'])}")
    return "\n".join(lines) + "\n"


# ---- files ----


def rows_of(results):
    for case in cases():
        peers = results.get(case.name, {})
        for strategy, rounds in peers.items():
            if not good(rounds):
                continue
            row = {"strategy": strategy, "case": case.name, **case.keys(), "rounds": len(good(rounds)), "done": sum(r["done"] for r in good(rounds))}
            row.update({f: figure(rounds, f) for f in FIGURES})
            row["share_of_none"] = share(peers, strategy)
            row["plain_vectors"] = any(r["plain_vectors"] for r in good(rounds))
            yield row


def table(head, lines):
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def markdown_case(case, peers):
    lines = []
    for name, rounds in peers.items():
        if good(rounds):
            cells = [figure(rounds, key) for key, *_ in COLUMNS]
            lines.append([f"`{name}`", spread_text(figure(rounds, "iops"), count_text), *(form(f["median"]) if f else "-" for f, (_, _, _, form) in zip(cells, COLUMNS)),
                          spread_text(share(peers, name))])
    return f"\n## {case.name}\n\n{case.title}\n\n" + table(["", "requests/s", *(h for _, h, _, _ in COLUMNS), "share of none"], lines)


def markdown(everything, results):
    text = "# What the DMA strategies cost\n\n" + table(["", ""], [[k, str(v)] for k, v in everything["machine"].items()])
    text += "\n" + EXPLAINED + "\n\n## Goals\n\n"
    text += table(["goal", "share (least-most)", ""], [[g["name"], spread_text(g["spread"]), {True: "met", False: "missed", None: "not measured"}[g["met"]]] for g in everything["goals"]])
    if everything["primitives"]:
        text += "\n## Primitives\n\n" + table(["", "ns (least-most)", ""], [[f"`{p['name']}`", spread_text(p["ns"], "{:.1f}".format), p["what"]] for p in everything["primitives"]])
    if everything["explanation"]:
        text += "\n## What they explain\n\n" + table(["case", "strategy", "predicted ns", "measured ns", "the sum of"], [
            [r["case"], f"`{r['strategy']}`", "?" if r["predicted_ns"] is None else f"{r['predicted_ns']:.0f}", spread_text(r["measured_ns"], "{:.0f}".format), " + ".join(r["parts"])]
            for r in everything["explanation"]])
    return text + "".join(markdown_case(c, results[c.name]) for c in cases() if any(good(r) for r in results.get(c.name, {}).values()))


def write_files(directory, common, run, primitives, text):
    everything = {**common, "rows": list(rows_of(run.results)), "primitives": primitives, "goals": goal_rows(run.results),
                  "explanation": explanation_rows(run.results, primitives), "left_out": run.left_out}
    with open(f"{directory}/dma.txt", "w") as f:
        f.write(text)
    with open(f"{directory}/dma.json", "w") as f:
        json.dump(everything, f, indent=1)
    with open(f"{directory}/dma.md", "w") as f:
        f.write(markdown(everything, run.results))
