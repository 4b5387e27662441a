# SPDX-License-Identifier: MIT
"""bench/report_choice.py: what follows from the numbers: whether the goals are met, and which strategy to choose when. No
sentence here names a winner by itself: the rows of this run do, and where their spread does not tell two apart, both stand.

Only strategies that stopped every attack of the run are recommended for guests that are not trusted. Where the attacks were not
measured, the ones that are meant to stop all are taken, and that is said.
"""
import report_attack as attacks
import report_cost as cost
import report_poll as polling
from report_chart import colour
from report_data import NOT_MEASURED, OFFERED, bytes_text, clearly, count_text, figure, listed, number, of, plain_text, strategies_of, us_text
from report_page import Cell

MEANT_SAFE = ("copy", "pin", "iommu")
MISSED_SHOWN = 4


def safe(results):
    """(strategies, a remark): those to be chosen for guests that are not trusted."""
    if not results.attack.rows:
        return list(MEANT_SAFE), "the attacks were not measured in this run"
    tried = strategies_of(results.attack)
    good = [s for s in MEANT_SAFE if attacks.stops_all(results.attack, s)]
    unsaid = [s for s in MEANT_SAFE if s not in tried or attacks.stops_all(results.attack, s) is None]
    lost = [s for s in MEANT_SAFE if s in tried and attacks.stops_all(results.attack, s) is False]
    remarks = [f"without {listed(f'`{s}`' for s in lost)}, which lost to an attack"] if lost else []
    remarks += [f"{listed(f'`{s}`' for s in unsaid)} not tried against every attack"] if unsaid else []
    return good + [s for s in unsaid if s not in good], "; ".join(remarks)


def best(pairs, larger=True):
    """([the best and those that cannot be told from it], [the rest]) of [(name, Figure or None)]."""
    there = sorted([p for p in pairs if p[1]], key=lambda p: -p[1].median if larger else p[1].median)
    if not there:
        return [], []
    top = there[0][1]
    told = lambda f: clearly(top, f) if larger else clearly(f, top)
    return [p for p in there if not told(p[1])], [p for p in there if told(p[1])]


def preferred(first):
    """Names of equals, the default first."""
    return sorted((n for n, _ in first), key=lambda n: n != "pin")


def choice(situation, pairs, form, what, larger=True, remark=""):
    """A row of the decision table."""
    first, rest = best(pairs, larger)
    if not first:
        return [situation, Cell(NOT_MEASURED, "none"), ""]
    said = ", ".join(f"`{n}` {form(f.median)}" for n, f in first + rest)
    named = preferred(first)
    tie = "; the rounds do not tell the first ones apart" if len(first) > 1 else ""
    return [situation, Cell(" or ".join(f"`{n}`" for n in named), "", "", colour(named[0]) if len(named) == 1 else None), f"{what}: {said}{tie}" + (f" ({remark})" if remark else "")]


def trusted_row(results):
    """Whether leaving the hole open buys anything."""
    dma = results.dma
    its, pins = cost.share(dma, "validate"), cost.share(dma, "pin")
    situation = "Guests that are your own, and speed is all"
    if not its or not pins:
        return [situation, Cell(NOT_MEASURED, "none"), ""]
    lost = attacks.losses(results.attack, "validate")
    hole = f"it lost to {listed(lost)}" if lost else "its hole is there whether an attack met it in this run or not"
    if clearly(its, pins):
        gain = (its.median / pins.median - 1) * 100
        return [situation, Cell("`validate`, if need be", "", "", colour("validate")), f"{gain:.0f} % faster than `pin` ({its.median:.2f} and {pins.median:.2f} of `none`); {hole}"]
    return [situation, Cell("`pin`", "", "", colour("pin")), f"`validate` gains nothing that the rounds tell ({its.median:.2f} and {pins.median:.2f} of `none`); {hole}"]


def device_row(results):
    kept = cost.share(results.dma, "iommu")
    price = f"it keeps {kept.median:.2f} of `none`" if kept else "its cost was not measured in this run"
    return ["A device that is handed to a guest, or reaches 4 GiB only", Cell("`iommu`", "", "", colour("iommu")),
            f"the only one with bus addresses, a window, faults and interrupts that belong to a domain: not a matter of speed; {price}"]


def stable_row(results):
    name = next((n for n, _ in attacks.attacks(results.attack) if "checksum" in n or "stable" in n), None)
    kept = cost.share(results.dma, "copy")
    price = f" at the price of `copy`, which keeps {kept.median:.2f} of `none`" if kept else ""
    said = "" if name is None else " The attack on it: " + ", ".join(
        f"`{s}` {got[1]:,} of {got[0]:,}" for s in strategies_of(results.attack) if (got := attacks.score(results.attack, s, name))) + "."
    return ["Data that must not change while it is used, as under a checksum", "any",
            f"an image that needs stable data says so, and its requests are copied under every strategy{price}.{said}"]


def strategy_rows(results):
    dma = results.dma
    good, remark = safe(results)
    sizes = sorted(int(b) for b in dma.values("block_bytes"))
    share = lambda **want: [(s, cost.share(dma, s, **want)) for s in good]
    rows = [choice("Guests that are not trusted, small requests", share(), "{:.2f}".format, "share of `none`, 4 KiB reads, 32 in flight", remark=remark),
            choice("… that mostly write", share(op="write"), "{:.2f}".format, "share of `none`, 4 KiB writes, 32 in flight")]
    if sizes and sizes[-1] > 4096:
        pairs = [(s, of(cost.case(dma, s, block_bytes=sizes[-1]), "cpu_s_per_gib")) for s in good]
        rows.append(choice("… large requests", pairs, plain_text, f"CPU seconds a GiB, {bytes_text(sizes[-1])} reads", larger=False))
    wants = cost.pool_wants(dma)
    pairs = [(s, of(cost.pool_rows(dma, s, **wants)[1], "iops")) for s in good] if wants else []
    rows.append(choice("… a pool of buffers much larger than the caches", pairs, count_text, "requests/s, cold pool"))
    rows.append(choice("… one request at a time", [(s, of(cost.case(dma, s, qd=1), "p50_us")) for s in good], us_text, "p50", larger=False))
    pairs = [(s, of(cost.usual(dma.pick(strategy=s, **cost.STANDARD, persistent=False)), "iops")) for s in good]
    rows.append(choice("… that grant anew for each request", pairs, count_text, "requests/s without persistent grants"))
    return rows + [stable_row(results), device_row(results), trusted_row(results)]


def waiting_rows(results):
    poll = results.poll
    modes = polling.modes_of(poll)
    rates = polling.rate_rows(poll)
    rows = []
    if rates:
        low, high = min(rates), max(rates)
        rows.append(choice(f"Waiting: few requests ({count_text(low)}/s), processor time matters", [(m, polling.cpu_of(rates[low].get(m))) for m in modes],
                           plain_text, "processors busy", larger=False))
        rows.append(choice(f"Waiting: many requests ({count_text(high)}/s), latency matters", [(m, polling.latency("p50_us")(rates[high].get(m))) for m in modes], us_text, "p50",
                           larger=False))
    places = [k for k in polling.closed_places(poll) if number(k[1])]
    for cores, title in ((1, "Waiting: both ends on one core"), (2, "Waiting: a core for each end, 32 in flight")):
        keys = [k for k in places if k[1] == cores]
        if keys:
            pattern = "closed-qd1" if cores == 1 else "closed-qd32"
            pairs = [(m, of(poll.first(mode=m, pattern=pattern, devices=keys[0][0], cores=cores), "iops")) for m in modes]
            rows.append(choice(title, pairs, count_text, f"requests/s, {polling.PATTERNS[pattern]}"))
    return rows or [["Waiting: interrupt, poll or adaptive", Cell(NOT_MEASURED, "none"), ""]]


def section(results, page):
    page.section("choice", "Which to choose when")
    page.text("Each row is decided by the figures of this run that stand in it. Where several are named, the rounds do not tell them apart; then `pin`, the default, "
              "asks the least of a guest." if "pin" in safe(results)[0] else "Each row is decided by the figures of this run that stand in it.")
    page.table(["when", "choose", "because, in this run"], strategy_rows(results) + waiting_rows(results))
    page.text("`domzero block-attach … dma=NAME` chooses, `domzero block-set … dma=NAME` changes it while the disk runs, `poll=MODE` likewise; "
              "`block-list` shows what is in force.")


# What was promised.


def goal_text(x, digits=3):
    f = figure(x)
    if f:
        return close_text(f.median, digits)
    return NOT_MEASURED if x in (None, "") else str(x)


def close_text(x, digits=3):
    """Close enough to see on which side of a goal it is, mostly: a miss has a digit more."""
    return f"{x:.{digits}f}".rstrip("0").rstrip(".") if abs(x) < 10 else plain_text(x)


def spread_of(goal):
    f = figure(goal.get("spread") if isinstance(goal.get("spread"), dict) else {**goal, "median": goal.get("got")})
    return f"{close_text(f.least)}–{close_text(f.most)}" if f and f.most > f.least else ""


def successes_text(n):
    return f"{n:,} success{'' if n == 1 else 'es'}"


def attack_goals(attack):
    """Rows of goals(): what the attacks must show."""
    rows = []
    for s in MEANT_SAFE:
        if attack.pick(strategy=s):
            lost = sum((attacks.score(attack, s, n) or (0, 0))[1] for n, _ in attacks.attacks(attack))
            verdict = False if lost else attacks.stops_all(attack, s)
            rows.append((f"attacks: `{s}` stops all", "0 successes", successes_text(lost), verdict, ""))
    if attack.pick(strategy="validate"):
        lost = sum((attacks.score(attack, "validate", n) or (0, 0))[1] for n, _ in attacks.attacks(attack))
        rows.append(("attacks: `validate` shows its hole", "at least 1 success", successes_text(lost), lost > 0, ""))
    return rows


def goals(results):
    """[(name, must, got, met: True, False, or None where it was not measured, least and most)]."""
    rows = []
    for r in (results.dma, results.poll, results.attack):
        for g in r.goals():
            met = g.get("met") if isinstance(g.get("met"), bool) else None
            if g.get("got") in (None, "", NOT_MEASURED):
                met = None
            rows.append((str(g["name"]), goal_text(g.get("must")), goal_text(g.get("got"), 4 if met is False else 3), met, spread_of(g)))
    return rows if results.attack.goals() else rows + attack_goals(results.attack)


def goals_table(results, page):
    words = {True: ("met", "good"), False: ("missed", "bad"), None: (NOT_MEASURED, "none")}
    page.table(["goal", "must", "got", "verdict"],
               [[n, must, Cell(got, "", spread), Cell(*words[met])] for n, must, got, met, spread in goals(results)], "What was promised, and what this run shows")


def short(results):
    """The answer in a few sentences."""
    out, rows = [], goals(results)
    missed, met = [g for g in rows if g[3] is False], [g for g in rows if g[3] is True]
    kept = [(s, cost.share(results.dma, s)) for s in OFFERED]
    if any(f for _, f in kept):
        out.append("Of the throughput of checking nothing, at 4 KiB with 32 requests in flight: "
                   + listed(f"`{s}` keeps {f.median * 100:.0f} %" for s, f in cost.ranked(kept)) + ".")
    out += attacks.verdict_text(results.attack) if results.attack.rows else []
    good, remark = safe(results)
    first, _ = best([(s, cost.share(results.dma, s)) for s in good])
    if first and results.attack.rows:
        tie = "; the rounds do not tell them apart, so the default, where it is among them" if len(first) > 1 else ""
        out.append(f"So, for guests that are not trusted: {' or '.join(f'`{n}`' for n in preferred(first))}{tie}" + (f" ({remark})." if remark else "."))
    out += polling.shared_core_text(results.poll)[:1]
    if rows:
        unmeasured = len(rows) - len(met) - len(missed)
        goals_said = f"{len(met)} of {len(rows)} goals are met" + (f", {unmeasured} not measured" if unmeasured else "")
        out.append(goals_said + (". **Missed**: " + "; ".join(f"{n} (must {must}, got {got})" for n, must, got, *_ in missed[:MISSED_SHOWN])
                                  + (f"; and {len(missed) - MISSED_SHOWN} more in the table" if len(missed) > MISSED_SHOWN else "") if missed else "") + ".")
    return out or ["Nothing was measured in this run."]
