# SPDX-License-Identifier: MIT
"""bench_dma_check.py DIR: what a run of bench/dma.py left in DIR is whole: each strategy that is offered has a row for each case
that was run, with figures that can be true of it, the primitives are all there, and what this build lacks is named."""
import json, math, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "bench"))
sys.dont_write_bytecode = True
from dma_cases import STRATEGIES, cases, goals

directory, names = sys.argv[1], sys.argv[2:]
with open(f"{directory}/dma.json") as f:
    result = json.load(f)
with open(f"{directory}/dma.txt") as f:
    text = f.read()
with open(f"{directory}/dma.md") as f:
    markdown = f.read()

assert result["kind"] == "dma" and result["machine"]["cpu"] and result["commit"] and result["rounds"] == 2
lacking = {r["strategy"] for r in result["left_out"]}
assert all(r["case"] is None and r["why"] in text for r in result["left_out"]), result["left_out"]
assert not lacking & {"copy", "pin", "the primitives"}, result["left_out"]
there = [s for s in STRATEGIES if s not in lacking]
keys = ("strategy", "op", "block_bytes", "qd", "storage", "pool", "persistent", "touch")
rows = {tuple(r[k] for k in keys): r for r in result["rows"]}
assert len(rows) == len(result["rows"]) == len(there) * len(names), "a row for each strategy and case, and no other"


def whole(figure):
    return figure and 0 <= figure["least"] <= figure["median"] <= figure["most"] and math.isfinite(figure["most"])


for case in (c for c in cases() if c.name in names):
    assert case.name in text and case.title in markdown
    for strategy in there:
        row = rows[(strategy, *(case.keys()[k] for k in keys[1:]))]
        assert row["done"] > 0 and row["rounds"] == 2
        for name in ("iops", "gib_s", "p50_us", "p99_us", "cpu_us_per_io", "client_cpu_us_per_io", "server_cpu_us_per_io", "cpu_s_per_gib", "syscalls_per_io"):
            assert whole(row[name]) and row[name]["median"] > 0, (case.name, strategy, name, row[name])
        assert row["bytes_copied_per_io"]["median"] == (case.block_bytes if strategy == "copy" else 0), (case.name, strategy)
        if strategy in ("copy", "pin"):
            pages = case.block_bytes / 4096
            maps = row["maps_per_io"]["median"]
            assert maps == pages if not case.persistent else maps <= pages, (case.name, strategy, maps)
        assert (row["share_of_none"] is None) == ("none" in lacking), row

primitives = {p["name"]: p for p in result["primitives"]}
for name in ("validate", "pin", "unpin", "pin-kernel", "unpin-kernel", "copy-4k-hot", "copy-4k-cold", "mmap-munmap", "mmap-munmap-threads"):
    assert whole(primitives[name]["ns"]) and primitives[name]["ns"]["median"] > 0 and primitives[name]["what"] in text, name
assert [g["name"] for g in result["goals"]] == [g.name() for g in goals()]
for goal in result["goals"]:
    assert (goal["met"] is None) == (goal["got"] is None) == (goal["case"] not in names or "none" in lacking or goal["strategy"] in lacking), goal
