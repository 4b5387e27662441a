#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/attack.py: a hostile guest against each DMA strategy: how often it tried, how often it got at something that was not
its own, and what stopped it. docs/attack.md says what the attacks are and what they show.

Success is anything but the attacker's own data read, changed or stopped. `validate` has to lose and everything else must not:
otherwise the exit status is 1. Each pair of strategy and attack is one run of build/bench/attack_dma with a seed of its own. Knobs:

  ATTEMPTS=4000 SEED=1 BUILD=build
  QUICK=1                 an eighth of the attempts
  REPORT_SECONDS          it is to be done in less: leaves out what there is no time for
  STRATEGIES, ATTACKS     by commas; a part of an attack's name is enough
  RESULTS                 where attack.json goes; otherwise bench/results/attack-DATE-COMMIT/, of partial and quick runs
                          bench/results/latest/
"""
import json, os, subprocess, sys, time

sys.dont_write_bytecode = True
import machine
from driver import QUICK, Ended, Progress, may_be_ended, out_of_time, picked, results_directory

BUILD = os.environ.get("BUILD") or "build"
ATTEMPTS = int(os.environ.get("ATTEMPTS") or (500 if QUICK else 4000))
SEED = int(os.environ.get("SEED") or 1)
PROGRAM = os.path.join(BUILD, "bench", "attack_dma")
LOSES = ["validate"]


def wanted(names):
    parts = [p for p in os.environ.get("ATTACKS", "").split(",") if p]
    return [n for n in names if not parts or any(p in n for p in parts)]


def fight(strategy, attack, seed):
    said = subprocess.run([PROGRAM, strategy, attack, str(ATTEMPTS), str(seed)], capture_output=True, text=True)
    if said.returncode:
        sys.exit(f"attack: {strategy}, {attack}, seed {seed}: exit status {said.returncode}: {said.stderr.strip()}")
    return json.loads(said.stdout)


def fights(listed, rows):
    """Into `rows`, with a line of progress each."""
    pairs = [(s, a) for a in wanted([a["name"] for a in listed["attacks"]]) for s in picked(listed["strategies"], "STRATEGIES")]
    progress = Progress(len(pairs), len(pairs))
    for i, (strategy, attack) in enumerate(pairs):
        if out_of_time(progress.begin):
            print(f"attack: no time left for {strategy}: {attack}", file=sys.stderr)
            continue
        progress.case(f"{strategy}: {attack}")
        rows.append(fight(strategy, attack, SEED + i))
        progress.step()


def cell(row):
    if not row["attempts"]:
        return "-"
    ways = [sorted(row[kind].items(), key=lambda w: -w[1]) for kind in ("won", "stopped")]
    how = "; ".join(", ".join(f"{name} {count}" for name, count in w) for w in ways if w)
    return f"{row['successes']} of {row['attempts']}" + (f" ({how})" if how else "")


def table(rows):
    strategies = list(dict.fromkeys(r["strategy"] for r in rows))
    for attack in dict.fromkeys(r["attack"] for r in rows):
        print(f"\n{attack}")
        for r in (r for s in strategies for r in rows if r["strategy"] == s and r["attack"] == attack):
            mark = "LOST" if r["successes"] else ""
            print(f"  {r['strategy']:<9}{mark:<5} {cell(r)}" + (f": {r['note']}" if r["note"] else ""))


def demonstration(rows):
    """What a success looks like: a page of the victim's, before and after."""
    for r in rows:
        d = r.get("damage")
        if d:
            print(f"\n{r['strategy']}, {r['attack']}: frame {d['frame']} of the victim's, its canaries from byte {d['offset']} on:\n"
                  f"  before  {d['before']}\n  after   {d['after']}")


def verdict(rows):
    """Sentences on what is not as it must be."""
    wrong = [f"{r['strategy']} lost {r['successes']} of {r['attempts']} to the attack '{r['attack']}' (seed {r['seed']})"
             for r in rows if r["successes"] and r["strategy"] not in LOSES]
    for name in LOSES:
        if any(r["strategy"] == name for r in rows) and not any(r["strategy"] == name and r.get("damage") for r in rows):
            wrong.append(f"{name} was to lose a canary of the victim's and did not: the bench shows nothing")
    return wrong


def main():
    listed = json.loads(subprocess.run([PROGRAM, "list"], capture_output=True, text=True, check=True).stdout)
    begin, rows, ended = time.monotonic(), [], []
    may_be_ended()
    try:
        fights(listed, rows)
    except Ended as e:
        ended = [f"{e} after {len(rows)} rows"]
    partial = QUICK or bool(os.environ.get("STRATEGIES") or os.environ.get("ATTACKS") or os.environ.get("ATTEMPTS"))
    result = {"kind": "attack", "commit": machine.commit(), "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
              "machine": machine.describe(".", "/dev/shm"), "seed": SEED, "rounds": 1,
              "seconds_each": round((time.monotonic() - begin) / max(len(rows), 1), 3), "quick": QUICK,
              "attempts": ATTEMPTS, "attacks": listed["attacks"], "rows": rows}
    path = os.path.join(results_directory("attack", not partial, machine.commit()), "attack.json")
    with open(path, "w") as f:
        json.dump(result, f, indent=1)
    table(rows)
    demonstration(rows)
    print(f"\n{sum(r['attempts'] for r in rows)} attempts, seed {SEED}; written to {path}")
    wrong = ended or verdict(rows)
    for w in wrong:
        print(f"attack: {w}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
