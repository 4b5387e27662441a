# SPDX-License-Identifier: MIT
"""bench/report_cost.py: what each strategy costs, from dma.json, and why, from the primitives measured in the same run.

The case that stands for the rest is STANDARD: a 4 KiB read of a file in the page cache, 32 requests in flight, the guest's pool
small. A share of `none` is the ratio of throughputs within a round, so what disturbs both rows falls out.
"""
import report_chart as chart
from report_data import (APART_LEAST, NOT_MEASURED, ONE_ROUND, Figure, bytes_text, clearly, count_text, figure, listed, ns_text, number, of, plain_text, rate_text, strategies_of,
                         us_text)
from report_page import Cell

STANDARD = {"op": "read", "block_bytes": 4096, "qd": 32, "storage": "hot", "pool": "hot"}
NEAR_NS = 15  # predictions that are closer do not order anything


def usual(rows):
    """Of rows that differ only in what is a matter of course: data not looked at, grants that stay mapped."""
    return min(rows, key=lambda r: (bool(r.get("touch")), not r.get("persistent")), default=None)


def case(dma, strategy, **want):
    """The row of a strategy in the standard case, or in that with what is said different. Of persistent grants, where both
    were measured."""
    return usual(dma.pick(strategy=strategy, **{**STANDARD, **want}))


def share(dma, strategy, **want):
    """Of `none`, as a Figure: the paired ratio; where a file lacks it, that of the medians."""
    row = case(dma, strategy, **want)
    f = of(row, "share_of_none")
    if f or not row or strategy == "none":
        return f
    mine, its = of(row, "iops"), of(case(dma, "none", **want), "iops")
    return Figure(*[mine.median / its.median] * 3) if mine and its and its.median else None


def primitives(dma):
    """{name: ns or None}."""
    costs = {p["name"]: figure(p.get("ns")) for p in dma.objects("primitives") if isinstance(p.get("name"), str)}
    return {name: f and f.median for name, f in costs.items()}


def explanations(dma):
    """{case: [(strategy, predicted ns or None, of which parts, measured Figure)]}: what a request takes longer than under `none`."""
    out = {}
    for r in dma.objects("explanation"):
        parts = r.get("parts") if isinstance(r.get("parts"), list) else []
        rounds = int(number((dma.first(case=r.get("case"), strategy=r.get("strategy")) or {}).get("rounds")) or 1)
        base = of(dma.first(case=r.get("case"), strategy="none"), "iops")
        doubt = ONE_ROUND * 1e9 / base.median if base and base.median > 0 else None  # it is a difference, and as unsure as what it is one of
        out.setdefault(str(r.get("case")), []).append((str(r.get("strategy")), number(r.get("predicted_ns")), " + ".join(map(str, parts)),
                                                           figure(r.get("measured_ns"), rounds, doubt)))
    return out


def explained(dma):
    """Of these: the standard case, and the one whose figures are surest, which is one without storage as a rule."""
    all_ = explanations(dma)
    sure = lambda name: max((f.error() for *_, f in all_[name] if f), default=float("inf"))
    standard = (usual(dma.pick(**STANDARD)) or {}).get("case")
    return [name for name in dict.fromkeys((min(all_, key=sure, default=None), standard)) if name in all_]


def ranked(pairs):
    """[(name, Figure)], the largest first."""
    return sorted(((n, f) for n, f in pairs if f), key=lambda p: -p[1].median)


def order_text(pairs):
    """Names from the largest on; those next to each other that cannot be told apart are joined by ≈."""
    there = ranked(pairs)
    out = ""
    for i, (name, f) in enumerate(there):
        sign = "" if not i else " > " if clearly(there[i - 1][1], f) else " ≈ "
        out += f"{sign}`{name}` {f.median:.2f}"
    return out


def promised(dma, strategy, op):
    """The share of none that a goal asks for in the standard case."""
    row = case(dma, strategy, op=op)
    goals = [g for g in dma.goals() if row and g.get("strategy") == strategy and g.get("case") == row.get("case")]
    return number(goals[0].get("must")) if goals else None


# Pictures.


def share_picture(dma):
    them = [s for s in strategies_of(dma) if s != "none"]
    c = chart.Bars("Share of none: 4 KiB, 32 in flight, page cache", "throughput / that of none", ("read", "write"), them)
    for op in ("read", "write"):
        for s in them:
            c.put(op, s, share(dma, s, op=op))
            must = promised(dma, s, op)
            if must is not None:
                c.goal(op, s, must)
    return c


def cpu_picture(dma):
    sizes = sorted(int(b) for b in dma.values("block_bytes"))
    them = strategies_of(dma)
    c = chart.Bars("Processor time a GiB: read, 32 in flight, page cache", "CPU seconds per GiB, logarithmic", [bytes_text(b) for b in sizes], them, plain_text,
                   log=True)
    for s in them:
        for b in sizes:
            f = of(case(dma, s, block_bytes=b), "cpu_s_per_gib")
            c.put(bytes_text(b), s, f if f and f.least > 0 else None)
    return c


def pool_rows(dma, strategy, **want):
    """(hot, cold): rows that differ in the pool alone."""
    cold = usual(dma.pick(strategy=strategy, pool="cold", **want))
    same = {k: cold.get(k) for k in ("op", "block_bytes", "qd", "storage", "persistent", "touch")} if cold else {}
    return (dma.first(strategy=strategy, pool="hot", **same) if cold else None), cold


def pool_wants(dma):
    """Which case the cold pool is shown by: 4 KiB reads, where it has them."""
    cold = dma.pick(pool="cold")
    best = [r for r in cold if r.get("op") == "read" and r.get("block_bytes") == 4096] or cold
    deep = [r for r in best if r.get("qd") == 32] or best
    return {k: deep[0].get(k) for k in ("op", "block_bytes", "qd", "storage")} if deep else None


def pool_picture(dma):
    wants = pool_wants(dma)
    them = strategies_of(dma)
    name = f"{bytes_text(wants['block_bytes'])} {wants['op']}s, {wants['qd']} in flight" if wants else "hot and cold pool"
    c = chart.Bars(f"Hot pool and cold: {name}", "requests per second", ("hot pool", "cold pool"), them, count_text)
    for s in them if wants else ():
        hot, cold = pool_rows(dma, s, **wants)
        c.put("hot pool", s, of(hot, "iops"))
        c.put("cold pool", s, of(cold, "iops"))
    return c


def latency_picture(dma):
    them = strategies_of(dma)
    c = chart.Bars("Latency of one request at a time: 4 KiB read, page cache", "microseconds", ("p50", "p99"), them, plain_text)
    for s in them:
        row = case(dma, s, qd=1)
        c.put("p50", s, of(row, "p50_us"))
        c.put("p99", s, of(row, "p99_us"))
    return c


def primitive_colour(name):
    for s, starts in (("copy", "copy"), ("iommu", "io"), ("pin-each", ("pin-kernel", "unpin-kernel")), ("pin", ("pin", "unpin")), ("validate", "validate")):
        if name.startswith(starts):
            return chart.colour(s)
    return chart.colour("none")


def primitives_picture(dma):
    rows = [(n, ns, primitive_colour(n)) for n, ns in primitives(dma).items() if ns and ns > 0]
    return chart.Prices("What the parts cost, one at a time", "nanoseconds, logarithmic", rows, ns_text)


def prediction_picture(name, rows):
    c = chart.Bars(f"Added, beside none: {name}", "nanoseconds, logarithmic", [r[0] for r in rows], ("predicted", "measured"), plain_text, log=True)
    c.colours = {"measured": "#0072B2"}
    at_least = lambda f: Figure(*(max(x, 1) for x in (f.median, f.least, f.most)))  # the axis has no place for less
    for s, ns, _, f in rows:
        if ns is not None:
            c.put(s, "predicted", at_least(Figure(ns, ns, ns)), plain_text(ns))
        if f:
            c.put(s, "measured", at_least(f), plain_text(f.median))
    return c


# Tables.


def figure_cell(f, form=plain_text):
    if f is None:
        return Cell(NOT_MEASURED, "none")
    least, most = form(f.least), form(f.most)
    return Cell(form(f.median), "n", "" if least == most or form is rate_text else f"{least}–{most}")


def name_cell(name):
    return Cell(f"`{name}`", "", "", chart.colour(name))


COLUMNS = (  # figure, heading, unit, form
    ("iops", "requests/s", count_text), ("p50_us", "p50 µs", plain_text), ("p99_us", "p99 µs", plain_text),
    ("client_cpu_us_per_io", "CPU µs: guest", plain_text), ("server_cpu_us_per_io", "CPU µs: dom0", plain_text), ("cpu_s_per_gib", "CPU s/GiB", plain_text),
    ("bytes_copied_per_io", "bytes copied", rate_text), ("syscalls_per_io", "system calls", rate_text), ("maps_per_io", "maps", rate_text),
    ("pins_per_io", "kernel pins", rate_text),
)


def iotlb_cell(row):
    f = of(row, "iotlb_hit_rate")
    return Cell(f"{f.median * 100:.2f} %", "n") if f else Cell("–", "n")


def standard_table(dma, page):
    rows = []
    for s in strategies_of(dma):
        row = case(dma, s)
        kept = share(dma, s) if s != "none" else Figure(1, 1, 1)
        rows.append([name_cell(s), figure_cell(kept, "{:.2f}".format)] + [figure_cell(of(row, k), form) for k, _, form in COLUMNS] + [iotlb_cell(row)])
    head = ["strategy", Cell("share of `none`", "n"), *(Cell(h, "n") for _, h, _ in COLUMNS), Cell("IOTLB hits", "n")]
    page.table(head, rows, "4 KiB reads, 32 in flight, page cache. Each figure a request unless it says otherwise; small: the least and the most of the rounds",
               kind="wide")


KEYS = ("storage", "pool", "op", "block_bytes", "qd", "persistent", "touch")


def all_table(dma, page):
    rank = lambda r: [str(r.get(k)) if not isinstance(r.get(k), (int, float)) else f"{r[k]:012.0f}" for k in KEYS]
    them = strategies_of(dma)
    rows = []
    for r in sorted(dma.rows, key=lambda r: (rank(r), them.index(r["strategy"]) if r.get("strategy") in them else 99)):
        size = number(r.get("block_bytes"))
        what = [r.get("storage", "?"), r.get("pool", "?"), r.get("op", "?"), bytes_text(int(size)) if size else "?", r.get("qd", "?"),
                ("kept" if r.get("persistent") else "each") + (", looked at" if r.get("touch") else "")]
        kept = figure_cell(of(r, "share_of_none"), "{:.2f}".format)
        rows.append([*what, name_cell(str(r.get("strategy", "?"))), kept] + [figure_cell(of(r, k), form) for k, _, form in COLUMNS] + [iotlb_cell(r)])
    head = ["storage", "pool", "op", "size", "in flight", "grants", "strategy", Cell("share of `none`", "n"), *(Cell(h, "n") for _, h, _ in COLUMNS),
            Cell("IOTLB hits", "n")]
    page.table(head, rows, "", f"All {len(rows)} rows of this run", "wide")


# Sentences.


def share_text(dma):
    them = [(s, share(dma, s)) for s in strategies_of(dma) if s != "none"]
    there = [(s, f) for s, f in them if f]
    if not there:
        return "The share of `none` was not measured in this run."
    lines = f"By share of `none` in this case: {order_text(there)}. ≈ joins what the spread of the rounds does not tell apart."
    whole = [s for s, f in there if f.median >= 1 - max(APART_LEAST, 2 * f.error())]
    return lines + (f" {listed(f'`{s}`' for s in whole)} {'is' if len(whole) == 1 else 'are'} within the noise of checking nothing." if whole else "")


def cold_text(dma):
    wants = pool_wants(dma)
    if not wants:
        return "The cold pool was not measured in this run."
    losses = []
    for s in strategies_of(dma):
        hot, cold = (of(r, "iops") for r in pool_rows(dma, s, **wants))
        if hot and cold and hot.median:
            losses.append((s, 1 - cold.median / hot.median))
    if not losses:
        return "Hot and cold pool were not both measured in this run."
    name, most = max(losses, key=lambda p: p[1])
    all_ = listed(f"`{s}` {'loses' if v >= 0 else 'gains'} {abs(v) * 100:.0f} %" for s, v in losses)
    base = dict(losses).get("none")
    why = ""
    if base is not None and name == "copy" and most > base + 0.03:
        why = " The copy is what meets the cold memory: those that do not touch the data pay for it in the kernel's own copy alone, `copy` once more."
    elif base is not None:
        why = " What `none` loses is the kernel's own copy between page cache and pool; only what a strategy loses beyond that is its own."
    return f"When the pool no longer fits the caches: {all_}.{why}"


def block_text(dma):
    """How the shares move as requests get larger."""
    sizes = sorted(int(b) for b in dma.values("block_bytes"))
    if len(sizes) < 2:
        return ""
    parts = []
    for s in ("copy", "pin", "iommu"):
        small, large = (share(dma, s, block_bytes=b) for b in (sizes[0], sizes[-1]))
        if small and large:
            told = clearly(large, small)
            parts.append(f"`{s}` from {small.median:.2f} to {large.median:.2f}" + ("" if told else " (no clear difference)"))
    return f"From {bytes_text(sizes[0])} to {bytes_text(sizes[-1])} the share of `none` goes, for {listed(parts)}." if parts else ""


def persistent_text(dma):
    parts = []
    for s in strategies_of(dma):
        kept, each = (of(usual(dma.pick(strategy=s, **STANDARD, persistent=p)), "iops") for p in (True, False))
        if kept and each and each.median:
            parts.append(f"`{s}` {(kept.median / each.median - 1) * 100:+.0f} %" + ("" if clearly(kept, each) else " (no clear difference)"))
    return f"Grants that stay mapped (persistent) change the throughput of the standard case, beside grants of each request: {', '.join(parts)}." if parts else ""


def latency_text(dma):
    them = [(s, of(case(dma, s, qd=1), "p50_us")) for s in strategies_of(dma)]
    there = [(s, f) for s, f in them if f]
    if len(there) < 2:
        return "Latency with one request at a time was not measured in this run."
    low, high = min(there, key=lambda p: p[1].median), max(there, key=lambda p: p[1].median)
    apart = high[1].median / low[1].median - 1
    told = "" if clearly(high[1], low[1]) else ", which the rounds do not tell apart: a wake-up costs far more than any strategy"
    return f"One request at a time: from {us_text(low[1].median)} (`{low[0]}`) to {us_text(high[1].median)} (`{high[0]}`), {apart * 100:.0f} % apart{told}."


def pairs_text(rows):
    """How far the primitives predict the measured order."""
    both = [(s, ns, f) for s, ns, _, f in rows if ns is not None and f]
    told = right = 0
    wrong = []
    for i, (a, pa, fa) in enumerate(both):
        for b, pb, fb in both[i + 1:]:
            sign = clearly(fa, fb)
            if not sign or abs(pa - pb) < NEAR_NS:
                continue
            told += 1
            good = (pa > pb) == (sign > 0)
            right += good
            wrong += [] if good else [f"`{a}` and `{b}`"]
    if not told:
        return "No two strategies lie so far apart here that the rounds tell them apart, so the predicted order is neither borne out nor refuted."
    text = f"Of the {told} pairs of strategies that the rounds tell apart, the primitives order {right if right < told else 'all'} as measured."
    return text + (f" Not as predicted: {listed(wrong)}; there something else than the primitives decides." if wrong else "")


def prediction_text(rows):
    parts = []
    for s, ns, _, f in rows:
        if ns is None or not f:
            continue
        off, unsure = f.median - ns, 2 * f.error()
        said = f"`{s}`: {ns_text(ns)} predicted, {plain_text(f.median)} ns measured"
        if abs(off) <= max(NEAR_NS, 0.3 * ns):
            parts.append(f"{said}: explained.")
        elif abs(off) <= unsure:
            parts.append(f"{said}, give or take {unsure:.0f}: this run cannot tell.")
        else:
            parts.append(f"{said}: {ns_text(abs(off))} {'more' if off > 0 else 'less'} than its primitives say"
                         + ("; the rest is not in them (caches, books, batches that change)." if off > 0 else "; part of it is hidden where this thread is not what limits."))
    return parts


def ratio_text(p, dear, cheap):
    """How many times as much, with both; None where one was not measured."""
    a, b = p.get(dear), p.get(cheap)
    return f"{a / b:.1f} times" if a and b and b > 0 else None


def reasons_text(dma):
    """The prices whose ratios make the order."""
    p = primitives(dma)
    ns = lambda name: ns_text(p[name])
    out = []
    if ratio_text(p, "copy-4k-cold", "copy-4k-hot"):
        out.append(f"A 4 KiB copy between pages that are in no cache costs {ns('copy-4k-cold')}, {ratio_text(p, 'copy-4k-cold', 'copy-4k-hot')} a hot one ({ns('copy-4k-hot')}): "
                   "what `copy` costs depends on where the data was last, what the others cost hardly does.")
    if p.get("pin-kernel") is not None and p.get("unpin-kernel") is not None:
        kernel, ours = p["pin-kernel"] + p["unpin-kernel"], (p.get("pin") or 0) + (p.get("unpin") or 0)
        beside = f", {kernel / ours:.0f} times what pinning in our own tables costs ({ns_text(ours)})" if ours else ""
        out.append(f"Registering and unregistering a page with the kernel costs {ns_text(kernel)}{beside}: hence `pin` registers an extent once, and `pin-each` "
                   "shows the price of not doing so.")
    if p.get("validate-kept") and p.get("validate"):
        out.append(f"A grant that stays mapped is checked in {ns('validate-kept')}, one of a single request in {ns('validate')}: persistent grants save the difference on each page.")
    if p.get("iotlb-hit") and p.get("iotlb-miss"):
        out.append(f"A translation that the IOTLB remembers costs {ns('iotlb-hit')}, a miss {ns('iotlb-miss')}.")
    if p.get("iommu-unmap-strict") and p.get("iommu-unmap-deferred"):
        strict, deferred = p["iommu-unmap-strict"], p["iommu-unmap-deferred"]
        out.append(f"A strict unmap costs {strict / deferred:.1f} times a deferred one ({ns_text(strict)} and {ns_text(deferred)}); who maps once pays neither in a request."
                   if strict > deferred * 1.05 else f"A strict unmap ({ns_text(strict)}) costs no more than a deferred one ({ns_text(deferred)}) here.")
    if p.get("mmap-munmap"):
        more = f", {ns('mmap-munmap-threads')} beside a second thread" if p.get("mmap-munmap-threads") else ""
        out.append(f"Mapping and unmapping a page in the process costs {ns('mmap-munmap')}{more}: what a strategy that maps each page anew would pay before it has "
                   "checked anything.")
    return out


# Sections.


def figure_of(name, c, caption):
    svg, why = chart.draw(name, c)
    return name, svg, caption, why


def cost_section(dma, page):
    page.section("cost", "What each costs")
    if not dma.rows:
        return page.note(f"Not measured in this run: {dma.why or 'dma.json has no rows'}. `make bench-dma` measures it.")
    page.text("`none` checks nothing and exists in the bench's build only; it stands for native. `pin-each` is `pin` that registers and unregisters "
              "the memory with the kernel for each request. Both are here to be measured against, no disk can have them.")
    page.figures([
        figure_of("share-of-none", share_picture(dma), f"{share_text(dma)} Black lines: what was promised."),
        figure_of("hot-and-cold", pool_picture(dma), cold_text(dma)),
        figure_of("cpu-per-gib", cpu_picture(dma), "Client and server together, io_uring's workers included. " + block_text(dma)),
        figure_of("latency", latency_picture(dma), latency_text(dma)),
    ])
    standard_table(dma, page)
    page.text(persistent_text(dma))
    all_table(dma, page)


def why_section(dma, page):
    page.section("why", "Why: the parts, and their sum")
    costs = primitives(dma)
    if not costs:
        return page.note("The primitives were not measured in this run.")
    page.text("The same run measures each part alone. What a strategy does with a request is a sum of them; if the sum is right, the order above is explained.")
    all_, them = explanations(dma), explained(dma)
    figures = [figure_of("primitives", primitives_picture(dma), "Each alone in a loop, on a processor that does nothing else.")]
    figures += [figure_of(f"predicted-{i + 1}", prediction_picture(name, all_[name]), f"What a strategy adds to a request of 4 KiB (`{name}`), from the primitives and as measured. "
                          f"{pairs_text(all_[name])}") for i, name in enumerate(them)]
    page.figures(figures)
    page.points(reasons_text(dma))
    if them:
        page.text(f"In `{them[0]}`, the case with the surest figures:")
        page.points(prediction_text(all_[them[0]]))
    table = [[f"`{case}`" if not i else "", name_cell(s), Cell(plain_text(ns), "n") if ns is not None else Cell(NOT_MEASURED, "none"), figure_cell(f), how]
             for case, them in explanations(dma).items() for i, (s, ns, how, f) in enumerate(them)]
    page.table(["case", "strategy", Cell("predicted ns", "n"), Cell("measured ns", "n"), "the sum of"], table, "Added to a request of 4 KiB, beside `none`", kind="wide")
    said = {str(p.get("name")): p.get("what", "") for p in dma.objects("primitives")}
    page.table(["part", Cell("ns", "n"), "what is measured"],
               [[f"`{n}`", Cell(plain_text(ns), "n") if ns is not None else Cell(NOT_MEASURED, "none"), str(said.get(n) or "")] for n, ns in costs.items()])
