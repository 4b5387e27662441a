# SPDX-License-Identifier: MIT
"""bench/report_poll.py: interrupt, poll, adaptive, from poll.json: latency, processors and notifications over the rate of
requests, and what happens where both ends share a core."""
import report_chart as chart
from report_cost import figure_cell, figure_of
from report_data import MODES, Figure, clearly, count_text, figure, listed, number, of, us_text
from report_page import Cell

PATTERNS = {"closed-qd1": "one request at a time", "closed-qd32": "32 in flight at all times", "poisson": "arrivals at random", "burst": "bursts"}
COLLAPSE = 10  # times slower than the best mode: what a page calls a collapse


def cpu_of(row, part="total"):
    """Processors busy: a figure, or one a part."""
    cpu = (row or {}).get("cpu")
    if isinstance(cpu, dict) and "median" not in cpu:
        f = figure(cpu.get(part))
        if f or part != "total":
            return f
        parts = [figure(cpu.get(p)) for p in ("client", "server")]
        return Figure(*(sum(x) for x in zip(*((p.median, p.least, p.most) for p in parts)))) if all(parts) else None
    return figure(cpu) if part == "total" else None


def modes_of(poll):
    there = poll.values("mode")
    return [m for m in MODES if m in there] + [str(m) for m in there if m not in MODES]


def settings(poll, pattern):
    """The (devices, cores) of a pattern that has most rows: what its picture shows; one device before more."""
    seen = {}
    for r in poll.pick(pattern=pattern):
        key = r.get("devices"), r.get("cores")
        seen[key] = seen.get(key, 0) + 1
    return min(seen, key=lambda k: (-seen[k], number(k[0]) or 0, -(number(k[1]) or 0))) if seen else None


def latency(name):
    """Of a row: the figure; None where the queue grew till the end, as then it says only how long the measurement was."""
    return lambda row: None if row and row.get("reached") is False else of(row, name)


def rates_picture(poll, title, label, of_row, log_y=False):
    c = chart.Lines(title, label, "requests asked for per second", log_y=log_y)
    chosen = settings(poll, "poisson")
    for mode in modes_of(poll):
        for r in poll.pick(mode=mode, pattern="poisson", devices=chosen[0], cores=chosen[1]) if chosen else ():
            c.put(mode, number(r.get("rate")), of_row(r))
    return c


def place_text(key, between=", "):
    devices, cores = key
    return f"{devices} {'device' if devices == 1 else 'devices'}{between}{cores} {'core' if cores == 1 else 'cores'}"


def closed_places(poll):
    keys = {(r.get("devices"), r.get("cores")) for r in poll.rows if str(r.get("pattern", "")).startswith("closed")}
    return sorted(keys, key=lambda k: (number(k[1]) or 0, number(k[0]) or 0))


def closed_picture(poll, pattern):
    places = [k for k in closed_places(poll) if poll.pick(pattern=pattern, devices=k[0], cores=k[1])]
    c = chart.Bars(f"Throughput, {PATTERNS[pattern]}", "requests per second, logarithmic", [place_text(k, "\n") for k in places] or ["–"], modes_of(poll), count_text, log=True)
    for k in places:
        for mode in modes_of(poll):
            f = of(poll.first(mode=mode, pattern=pattern, devices=k[0], cores=k[1]), "iops")
            c.put(place_text(k, "\n"), mode, f if f and f.median > 0 else None)
    return c


def rate_rows(poll):
    """{rate: {mode: row}} of the pictured open loop."""
    chosen = settings(poll, "poisson")
    out = {}
    for r in poll.pick(pattern="poisson", devices=chosen[0], cores=chosen[1]) if chosen else ():
        rate = number(r.get("rate"))
        if rate:
            out.setdefault(rate, {})[r.get("mode")] = r
    return dict(sorted(out.items()))


def compare(rows, to, figure_of_row):
    """adaptive over another mode, or None."""
    a, b = figure_of_row(rows.get("adaptive")), figure_of_row(rows.get(to))
    return a.median / b.median if a and b and b.median else None


def latency_text(poll):
    rates = rate_rows(poll)
    if not rates:
        return "The open loop was not measured in this run."
    parts = []
    for which, rate in (("lowest", min(rates)), ("highest", max(rates))):
        there = [(m, latency("p50_us")(r)) for m, r in rates[rate].items() if latency("p50_us")(r)]
        late = [m for m, r in rates[rate].items() if r.get("reached") is False]
        if late:
            parts.append(f"At the {which} rate, {count_text(rate)}/s, {listed(f'`{m}`' for m in late)} did not keep up")
        if len(there) > 1:
            best = min(there, key=lambda p: p[1].median)
            worst = max(there, key=lambda p: p[1].median)
            told = f"`{best[0]}` answers soonest (p50 {us_text(best[1].median)}), `{worst[0]}` latest ({us_text(worst[1].median)})"
            parts.append(f"At the {which} rate, {count_text(rate)}/s, {told}" if clearly(worst[1], best[1]) else
                         f"At the {which} rate, {count_text(rate)}/s, the modes' p50 do not differ clearly ({us_text(best[1].median)})")
    return ". ".join(parts) + "." if parts else ""


def cpu_text(poll):
    rates = rate_rows(poll)
    if not rates:
        return ""
    low = rates[min(rates)]
    r = compare(low, "interrupt", cpu_of)
    p = compare(low, "poll", cpu_of)
    said = []
    if r is not None:
        said.append(f"{r:.2f} times the processor time of `interrupt`")
    if p is not None:
        said.append(f"{p:.2f} times that of `poll`")
    return f"At {count_text(min(rates))}/s `adaptive` uses {listed(said)}." if said else ""


def shared_core_text(poll):
    """What becomes of the modes where both ends have one core."""
    out = []
    for pattern in ("closed-qd1", "closed-qd32"):
        for key in [k for k in closed_places(poll) if k[1] == 1]:
            there = [(m, of(poll.first(mode=m, pattern=pattern, devices=key[0], cores=1), "iops")) for m in modes_of(poll)]
            there = [(m, f) for m, f in there if f and f.median > 0]
            if len(there) < 2:
                continue
            best = max(there, key=lambda p: p[1].median)
            worst = min(there, key=lambda p: p[1].median)
            times = best[1].median / worst[1].median
            place = f"{place_text(key)}, {PATTERNS[pattern]}"
            if times >= COLLAPSE:
                out.append(f"{place}: `{worst[0]}` **collapses**, {times:.0f} times slower than `{best[0]}`: it spins on the processor that the other end needs.")
            elif clearly(best[1], worst[1]):
                out.append(f"{place}: no mode collapses; `{best[0]}` is ahead of `{worst[0]}` by {(times - 1) * 100:.0f} %.")
            else:
                out.append(f"{place}: no mode collapses, and none is clearly ahead.")
    return out


def closed_text(poll, pattern):
    """adaptive beside whichever mode is best in each place."""
    parts = []
    for k in closed_places(poll):
        there = {m: of(poll.first(mode=m, pattern=pattern, devices=k[0], cores=k[1]), "iops") for m in modes_of(poll)}
        ours, others = there.get("adaptive"), [(m, f) for m, f in there.items() if f and m != "adaptive"]
        if ours and others:
            name, f = max(others, key=lambda p: p[1].median)
            parts.append(f"{ours.median / f.median:.2f} of `{name}` ({place_text(k)})" if f.median else "")
    return f"Beside the better of the other two, `adaptive` reaches {listed(p for p in parts if p)}. Logarithmic, as a collapse is a matter of powers of ten." if parts else ""


def table(poll, page):
    rows = []
    for r in poll.rows:
        rate = number(r.get("rate"))
        what = [Cell(f"`{r.get('mode', '?')}`", "", "", chart.colour(r.get("mode"))), str(r.get("pattern", "?")), Cell(count_text(rate) if rate else "–", "n", "not reached" if r.get("reached") is False else ""),
                Cell(r.get("devices", "?"), "n"), Cell(r.get("cores", "?"), "n")]
        rows.append(what + [figure_cell(of(r, "iops"), count_text), *(figure_cell(of(r, k)) for k in ("p50_us", "p99_us", "p999_us")),
                            *(figure_cell(cpu_of(r, p)) for p in ("client", "server", "total")), figure_cell(of(r, "notifications_per_request"))])
    head = ["mode", "arrivals", Cell("rate/s", "n"), Cell("devices", "n"), Cell("cores", "n"),
            *(Cell(h, "n") for h in ("requests/s", "p50 µs", "p99 µs", "p99.9 µs", "CPUs: guest", "dom0", "both", "notifications a request"))]
    page.table(head, rows, "", f"All {len(rows)} rows of this run", "wide")


def section(poll, page):
    page.section("waiting", "Interrupts and polling")
    page.text("A queue without work waits in one of three ways. `interrupt` asks for an event and sleeps. `poll` keeps looking. `adaptive` takes an interrupt, masks it, looks until "
              "nothing came for a window, and arms it again; the window follows what pays, and is 0 where there is no processor to spare.")
    if not poll.rows:
        return page.note(f"Not measured in this run: {poll.why or 'poll.json has no rows'}. `make bench-poll` measures it.")
    chosen = settings(poll, "poisson")
    where = f" Arrivals at random (Poisson), {place_text(chosen)}." if chosen else ""
    page.figures([
        figure_of("latency-over-rate", rates_picture(poll, "Latency over rate: p50", "microseconds, logarithmic", latency("p50_us"), True), latency_text(poll) + where),
        figure_of("tail-over-rate", rates_picture(poll, "Latency over rate: p99", "microseconds, logarithmic", latency("p99_us"), True), "The same, for the slowest hundredth."),
        figure_of("cpu-over-rate", rates_picture(poll, "Processors busy over rate", "processors, both ends", cpu_of), cpu_text(poll)),
        figure_of("notifications-over-rate", rates_picture(poll, "Notifications a request over rate", "notifications", lambda r: of(r, "notifications_per_request")),
                  "Each is a system call at one end and a wake-up at the other."),
        *(figure_of(f"throughput-{p}", closed_picture(poll, p), closed_text(poll, p))
          for p in ("closed-qd1", "closed-qd32")),
    ])
    page.points(shared_core_text(poll))
    table(poll, page)
