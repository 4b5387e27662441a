# SPDX-License-Identifier: MIT
"""bench_poll_check.py DIR PATTERN...: what a run of bench/poll.py left in DIR is whole: rows of these patterns and no others, each
with figures that are numbers and a spread around them, each mode that was asked for with the same loads, and some of these served
(not each: blind spinning on one processor may not get to a request in such a moment); goals are judged by what
was measured, or say why not; the Markdown has all rows and goals."""
import json, math, sys

directory, patterns = sys.argv[1], sys.argv[2:]
with open(f"{directory}/poll.json") as f:
    result = json.load(f)
with open(f"{directory}/poll.md") as f:
    text = f.read()

assert result["kind"] == "poll" and result["rounds"] == 2 and not result["left_out"], result["left_out"]
for key in ("commit", "date", "seed", "seconds_each", "quick", "storage"):
    assert key in result, key
assert result["machine"]["cpu"] and result["machine"]["kernel"]


def check_spread(figure, what, least=0.0):
    assert all(math.isfinite(figure[k]) for k in ("median", "least", "most")), (what, figure)
    assert least <= figure["least"] <= figure["median"] <= figure["most"], (what, figure)


loads = {}
for row in result["rows"]:
    loads.setdefault(row["mode"], set()).add((row["pattern"], row["rate"], row["devices"], row["cores"]))
    for who in ("client", "server", "total"):
        check_spread(row["cpu"][who], (row["mode"], row["pattern"], who))
    if row["pattern"] == "idle":
        assert row["iops"] is None and row["p50_us"] is None, row
        continue
    for figure in ("iops", "p50_us", "p99_us", "p999_us", "notifications_per_request"):
        check_spread(row[figure], (row["mode"], row["pattern"], figure))
    assert isinstance(row["reached"], bool), row
    assert row["p50_us"]["median"] <= row["p99_us"]["median"] <= row["p999_us"]["median"], row
    assert (row["rate"] is None) == row["pattern"].startswith("closed"), row
for mode in loads:
    assert any(r["iops"] and r["iops"]["most"] > 0 for r in result["rows"] if r["mode"] == mode), f"{mode}: nothing was served"
first = next(iter(loads.values()))
assert all(l == first for l in loads.values()), loads
assert {p for p, *_ in first} == set(patterns), first
assert text.count("\n| closed") + text.count("\n| poisson") + text.count("\n| burst") + text.count("\n| idle") == len(result["rows"])
for goal in result["goals"]:
    assert goal["name"] in text and goal["must"] in text, goal
    assert (goal["got"] is None) == (goal["met"] is None) == ("why" in goal), goal
assert result["goals"] or len(loads) == 1
