# SPDX-License-Identifier: MIT
"""bench_store_check.py DIR: what a run of bench/store.py left in DIR is whole: ours has a row of each case; its figures are numbers with
a spread around them; who was left out could not be had, and nobody failed; a goal has a ratio of each round, and is judged by
its median; the text has all cases and goals."""
import json, math, sys

with open(f"{sys.argv[1]}/store.json") as f:
    result = json.load(f)
with open(f"{sys.argv[1]}/store.txt") as f:
    text = f.read()

assert result["kind"] == "store" and result["rounds_each"] == 2
for key in ("commit", "date", "seed", "seconds_each", "quick"):
    assert key in result, key
assert result["machine"]["cpu"] and result["machine"]["kernel"]
assert all(l["case"] == "all" and l["peer"] in ("c", "ocaml") for l in result["left_out"]), result["left_out"]


def check_spread(figure, what):
    assert all(math.isfinite(figure[k]) and figure[k] >= 0 for k in ("median", "least", "most")), (what, figure)
    assert figure["least"] <= figure["median"] <= figure["most"], (what, figure)


cases = {}
for row in result["rows"]:
    case = row["case"]
    cases.setdefault(case, set()).add(row["peer"])
    assert case in text, case
    for what in row["memory"].values():
        assert 0 < what["bytes_each"] < 10000 and what["made_per_s"] > 0, row
    assert row["rounds"] == 2, row
    check_spread(row["server_busy"], case)
    if case.startswith("idle"):
        continue
    for figure in ("per_s", "server_us", "client_us") + (() if case.startswith("ls") else ("p50_us", "p99_us", "p999_us")):
        check_spread(row[figure], (case, figure))
        assert row[figure]["most"] > 0, (case, figure, row)
    if case.startswith("fan"):
        assert row["events_per_s"]["most"] > 0, row
assert cases and all("ours" in peers for peers in cases.values()), cases
assert len({frozenset(p) for p in cases.values()}) == 1, cases
assert all(r["memory"] for r in result["rows"] if r["case"].endswith("0000") and not r["case"].startswith("children")), result["rows"]
judged = {g["case"] for g in result["goals"]}
for goal in result["goals"]:
    assert goal["goal"] in text, goal
    assert goal["met"] == ((goal["rate"] or goal["cpu"])["median"] >= goal["must"]), goal
if any(len(p) > 1 for p in cases.values()):
    assert judged - {"growth"} == set(cases), (judged, cases)
