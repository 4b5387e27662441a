#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/store.py: our store beside Xen's two, xenstored and oxenstored, in one run: what each does in a second for 1, 16 and 256
clients, how it grows, what a node takes.

What the numbers do not mean: the references run without Xen (scripts/peer-store.sh), so an event channel is a FIFO of theirs and an
eventfd of ours, not Xen's; a system call each time, as under Xen. Debian's binaries are compared, as Debian compiles them. One thread
is all clients: where it is the limit the table says so. xenstored slows down guests whose transactions collide or are many (rings-
transaction-*), which its processor time does not show.

Each case starts the stores anew, fills them alike, and has them take turns, A B C, A B C, for ROUNDS rounds; those that wait do
nothing. Only ratios of the same round compare. Knobs:

  ROUNDS=5 SECONDS_EACH=0.4 SEED=1 NICENESS=-15 BUILD=build
  QUICK=1        short rounds of some cases
  CASES, PEERS   patterns, by commas: CASES='read-*,fan-256' PEERS=ours,c; CASES=list names all
  REPORT_SECONDS it is to be done in less, and leaves out what there is no time for
  RESULTS        where to; otherwise a run of everything goes to bench/results/store-DATE-COMMIT/, others to bench/results/latest/
"""
import os, sys, time

sys.dont_write_bytecode = True
import machine, store_report
from block_peers import CannotRun
from driver import OTHERS_MOST, OTHERS_TEXT, QUICK, Ended, Progress, may_be_ended, out_of_time, picked, results_directory
from store_cases import OURS, PEERS, cases, growths
from store_peers import Store, lacking

ROUNDS = int(os.environ.get("ROUNDS") or (3 if QUICK else 5))
SECONDS = float(os.environ.get("SECONDS_EACH") or (0.2 if QUICK else 0.4))
SEED = int(os.environ.get("SEED") or 1)
QUICK_CASES = [f"{kind}-{n}" for kind in ("read", "write", "transaction", "fan", "rings-read") for n in (1, 16, 256)] + ["watches-0", "watches-10000"]


class Run:
    """All that a run learns."""

    def __init__(self, build, peers):
        self.build, self.peers = build, peers
        self.results, self.learned, self.left_out, self.text, self.start = {}, {}, [], [], time.monotonic()
        self.stores, self.growth = [], {}

    def say(self, text=""):
        print(text, flush=True)
        self.text.append(text)

    def leave_out(self, case, peer, why):
        self.left_out.append({"case": case, "peer": peer, "why": why})
        self.say(f"{case}: without {peer}: {why}")

    def prepared(self, case):
        """The stores that have what the case needs."""
        ready = []
        for peer in self.peers:
            store = Store(peer, self.build)
            self.stores.append(store)
            try:
                store.start()
                self.learned[case.name, peer] = store.prepare(case)
                ready.append(store)
            except CannotRun as e:
                self.leave_out(case.name, peer, str(e))
        return ready

    def case(self, case):
        rows = self.results[case.name] = {}
        try:
            ready = self.prepared(case)
            rows.update({s.peer: [] for s in ready})
            for round_ in range(ROUNDS):
                for store in ready[round_ % len(ready):] + ready[:round_ % len(ready)] if ready else ():
                    rows[store.peer].append(self.measure(case, store, round_))
        finally:
            self.stop()
        self.say(store_report.case_text(case, rows, {p: self.learned.get((case.name, p)) for p in rows}))

    def grow(self, growth, chosen):
        """Ours with little and ours with much, side by side: minutes apart they would differ by what others do on the machine."""
        ends = [c for c in chosen if c.name in growth.cases]
        if len(ends) < 2 or OURS not in self.peers:
            return
        try:
            self.stores = [Store(OURS, self.build) for _ in ends]
            for store, case in zip(self.stores, ends):
                store.start()
                store.prepare(case)
            rounds = [[s.measure(c, SECONDS, SEED + i)["server_us"] for s, c in zip(self.stores, ends)] for i in range(ROUNDS)]
            self.growth[growth.title] = [first / last for first, last in rounds]
        except CannotRun as e:
            self.leave_out(growth.title, OURS, str(e))
        finally:
            self.stop()

    def measure(self, case, store, round_):
        try:
            return store.measure(case, SECONDS, SEED + round_)
        except CannotRun as e:
            self.leave_out(case.name, store.peer, f"round {round_ + 1}: {e}")
            return None

    def stop(self):
        for s in self.stores:
            s.stop()
        self.stores = []


def available(run_peers):
    """Those that can be had, and [why not] of the others."""
    why = {p: lacking(p) for p in run_peers}
    return [p for p in run_peers if not why[p]], [{"case": "all", "peer": p, "why": w} for p, w in why.items() if w]


def measure_all(run, chosen):
    progress = Progress(len(chosen), len(chosen))
    for case in chosen:
        if out_of_time(run.start):
            run.leave_out(case.name, "all", "there was no time left for it")
            continue
        progress.case(case.name)
        run.case(case)
        progress.step()
    for growth in growths():
        run.grow(growth, chosen)


def main():
    every = cases()
    if os.environ.get("CASES") == "list":
        return print("\n".join(c.name for c in every))
    names = picked([c.name for c in every], "CASES", QUICK_CASES if QUICK else None)
    chosen, wanted = [c for c in every if c.name in names], picked(PEERS, "PEERS")
    if not chosen or not wanted or ROUNDS < 1:
        sys.exit("store.py: nothing to measure: CASES=list names all, PEERS are " + ", ".join(PEERS) + ", ROUNDS at least 1")
    may_be_ended()
    machine.raise_descriptor_limit()
    preferred = machine.prefer()
    peers, lack = available(wanted)
    run = Run(os.path.abspath(os.environ.get("BUILD") or "build"), peers)
    info = machine.describe("/tmp", "/tmp")
    info["niceness"] = f"{machine.NICE}, autogroups too" if preferred else "not raised, expect more noise"
    for line in (f"{k}: {v}" for k, v in info.items()):
        run.say(line)
    run.say("\n" + store_report.EXPLAINED + "\n")
    for l in lack:
        run.leave_out(l["case"], l["peer"], l["why"])
    busy, ended = machine.busy_seconds() - own_seconds(), None
    try:
        measure_all(run, chosen)
    except Ended as e:
        ended = f"store.py: {e}"
        run.leave_out("what was to follow", "all", str(e))
    info["others"] = round(max(0.0, (machine.busy_seconds() - own_seconds() - busy) / (time.monotonic() - run.start)), 2)
    info["load after"] = machine.one_word("/proc/loadavg")
    result = store_report.result(info, run, chosen, {"seed": SEED, "rounds_each": ROUNDS, "seconds_each": SECONDS, "quick": QUICK})
    run.say(store_report.goals_text(result["goals"]))
    if info["others"] > OTHERS_MOST:
        run.say(OTHERS_TEXT.format(info["others"]))
    to = results_directory("store", chosen == every and peers == list(PEERS) and not QUICK, info["commit"])
    store_report.write_files(to, result, "\n".join(run.text) + "\n")
    print(f"{to}/store.txt, store.json written; took {time.monotonic() - run.start:.0f} s")
    sys.exit(ended)


def own_seconds():
    """Processor time of this program, and of all loads and stores that ended."""
    return time.process_time() + machine.children_seconds()


main()
