# SPDX-License-Identifier: MIT
"""bench_block_check.py DIR CASE...: what a run of bench/block.py left in DIR is whole: each peer of each case has a row in JSON
and in CSV, with requests done and figures that are numbers, or stands among those left out with a reason; ours and the floor are
not among these; each goal is judged where its case was run."""
import csv, json, math, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "bench"))
sys.dont_write_bytecode = True
from block_cases import cases, goals

directory, names = sys.argv[1], sys.argv[2:]
with open(f"{directory}/block.json") as f:
    result = json.load(f)
with open(f"{directory}/block.csv") as f:
    in_csv = {(r["case"], r["peer"]) for r in csv.DictReader(f)}
with open(f"{directory}/block.txt") as f:
    text = f.read()
rows = {(r["case"], r["peer"]): r for r in result["rows"]}
left_out = {(r["case"], r["peer"]): r["why"] for r in result["left_out"]}

for case in (c for c in cases() if c.name in names):
    for peer in case.peers:
        key = case.name, peer
        if key in left_out:
            assert left_out[key], key
            assert left_out[key] in text, key
            assert not peer.startswith(("domzero", "floor")), f"{key}: {left_out[key]}"
            continue
        row = rows[key]
        assert key in in_csv and row["done"] > 0, key
        for figure in ("iops", "gib_s", "p50_us", "p99_us", "p999_us", "cpu_us_per_io"):
            assert math.isfinite(row[figure]) and row[figure] > 0, (key, figure, row[figure])
        assert row["p50_us"] <= row["p99_us"] <= row["p999_us"], key
        if "floor" in case.peers:
            assert row["ratio_floor_min"] <= row["ratio_floor"] <= row["ratio_floor_max"], key
assert {c for c, _ in rows} <= set(names), "a case that nobody asked for"

idle = result["rounds"].get("idle-disks", {}).get("domzero-adaptive", [{}])[0]
assert ("idle-disks" in names) == ("private_kib_per_disk" in idle), left_out
assert [g.title for g in goals()] == [g["goal"] for g in result["goals"]]
for goal in result["goals"]:
    assert (goal["verdict"] != "not measured") == (goal["case"] in names), goal
for key in ("cpu", "kernel", "commit", "load before", "load after", "niceness"):
    assert result["machine"][key], key
