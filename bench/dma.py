#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/dma.py: what the DMA strategies cost, side by side on the same disk: copy, validate, pin, iommu, and two that exist in this
build only: none, which checks nothing and stands for native, and pin-each, which pins and unpins with the kernel for each request.

What the numbers do not mean: they are of one machine, two processes and a file that mostly sits in the page cache. Only ratios
of one round compare, as a machine changes from minute to minute; a share of `none` is the median of these, with the least and
the most. Both ends poll a little before they sleep (--poll adaptive), each on a processor of its own but where io_uring needs
workers, so processor time has spinning in it, and the one that waits for the other looks busier than it is.

Each case runs all strategies one after another, A B C, B C A, for ROUNDS rounds of SECONDS_EACH; cases with a goal for
GOAL_ROUNDS rounds. The file is in the page cache before a round, for O_DIRECT it is dropped from there. A strategy that this build
does not have is left out and named. Knobs:

  ROUNDS=3 GOAL_ROUNDS=15 SECONDS_EACH=0.2 SIZE_MIB=256 SEED=1 MODE=adaptive NICENESS=-15 BUILD=build/rows
  PRIMITIVES=11,16384 rounds of the primitives, and how often each is done in one
  QUICK=1             a look in half a minute: the cases of goals and one of each kind, short
  CASES, STRATEGIES   patterns, by commas, that match whole names or those up to a dash; CASES=list names all; CASES=none: the primitives alone
  REPORT_SECONDS      it is to be done in less: measures shorter then, and leaves out what there is no time for
  RESULTS             where to; otherwise a run of everything goes to bench/results/dma-DATE-COMMIT/, others to bench/results/latest/
"""
import json, os, shutil, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
import dma_report, machine
from block_peers import Bench, CannotRun
from dma_cases import POOL_MIB, STRATEGIES, cases, goals, quick_cases
from dma_peer import Strategies
from driver import BUDGET, OTHERS_MOST, OTHERS_TEXT, QUICK, Ended, Progress, may_be_ended, out_of_time, picked, results_directory

ROUNDS = int(os.environ.get("ROUNDS") or (1 if QUICK else 3))
GOAL_ROUNDS = int(os.environ.get("GOAL_ROUNDS") or (5 if QUICK else 15))
SECONDS = float(os.environ.get("SECONDS_EACH") or (0.1 if QUICK else 0.2))
SIZE_MIB = int(os.environ.get("SIZE_MIB") or (128 if QUICK else 256))
SEED = int(os.environ.get("SEED") or "1")
MODE = os.environ.get("MODE") or "adaptive"
PRIMITIVES = os.environ.get("PRIMITIVES") or ("5,4096" if QUICK else "11,16384")
SLICE_SECONDS = 0.06  # what a measurement takes beside its load: a domain, a disk, their end


def rounds_of(case):
    return max(GOAL_ROUNDS, ROUNDS) if case.name in {g.case for g in goals()} else ROUNDS


def last_cache_bytes():
    """As the kernel has it for the first processor."""
    sizes = []
    for i in range(8):
        text = machine.one_word(f"/sys/devices/system/cpu/cpu0/cache/index{i}/size")
        if text.endswith("K"):
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=0)


def seconds_each(slices):
    """Less than asked for where all would not fit into the budget."""
    return SECONDS if not BUDGET else min(SECONDS, max(0.03, BUDGET * 0.7 / slices - SLICE_SECONDS))


class Run:
    def __init__(self, bench, peer, strategies):
        self.bench, self.peer, self.strategies = bench, peer, strategies
        self.results, self.left_out, self.text, self.others = {}, [], [], []

    def say(self, text=""):
        print(text, flush=True)
        self.text.append(text)

    def leave_out(self, strategy, case, why):
        self.left_out.append({"strategy": strategy, "case": case, "why": why})
        self.say(f"{case or 'all cases'}: without {strategy}: {why}")

    def probe(self):
        """Strategies that this build of the daemon has: it is asked for a disk with each."""
        for name in list(self.strategies):
            self.peer.use(name)
            try:
                self.peer.create(self.bench, quick_cases()[-3], "probe", "/dev/null")
            except CannotRun as e:
                self.strategies.remove(name)
                self.leave_out(name, None, str(e))
            subprocess.run([f"{self.peer.build}/domzero", "destroy", "probe"], env=self.peer.env, capture_output=True)

    def clocks(self):
        return machine.children_seconds() + time.process_time() + sum(machine.cpu_seconds(self.peer.pid(r)) for r in ("hypervisor", "store", "blk"))

    def prepare(self, case):
        path = self.bench.path(case)
        if not path:
            return
        machine.write_out(path, drop=case.direct)
        if not case.direct:
            (machine.soil if case.write else machine.warm)(path)

    def slice(self, case, strategy, round_):
        self.peer.use(strategy)
        before = machine.busy_seconds(), self.clocks(), time.monotonic()
        row = self.peer.measure(self.bench, case, SEED + round_)
        row["cpu_s_per_gib"] = row["cpu_us_per_io"] * 1e-6 * 2**30 / case.block_bytes
        busy, ours, wall = machine.busy_seconds() - before[0], self.clocks() - before[1], time.monotonic() - before[2]
        self.others.append(max(0.0, (busy - ours) / wall))
        return row

    def case(self, case, progress):
        progress.case(case.name)
        rows = {name: [] for name in self.strategies}
        for round_ in range(rounds_of(case)):
            self.prepare(case)
            at = round_ % len(self.strategies)
            for name in self.strategies[at:] + self.strategies[:at]:
                try:
                    rows[name].append(self.slice(case, name, round_))
                except CannotRun as e:
                    self.leave_out(name, case.name, f"round {round_ + 1}: {e}")
                    rows[name].append(None)
                progress.step()
        self.results[case.name] = rows
        self.say(dma_report.case_text(case, rows))


def measure_primitives(bench):
    p = subprocess.run([f"{bench.build}/bench/dma_primitives", *PRIMITIVES.split(",")], capture_output=True, text=True)
    if p.returncode:
        raise CannotRun(p.stderr.strip() or f"exit status {p.returncode}")
    return json.loads(p.stdout)["primitives"]


def all_of(run, wanted, start, primitives):
    try:
        primitives += measure_primitives(run.bench)
        run.say("The primitives alone, median (least-most):\n" + dma_report.primitives_text(primitives))
    except CannotRun as e:
        run.leave_out("the primitives", None, str(e))
    run.say(dma_report.EXPLAINED + "\n")
    run.peer.start(run.bench)
    run.probe()
    slices = sum(rounds_of(c) for c in wanted) * len(run.strategies)
    run.bench.seconds = seconds_each(slices)
    progress = Progress(len(wanted), slices, run.bench.seconds + SLICE_SECONDS)
    for case in wanted:
        if out_of_time(start):
            run.leave_out("every strategy", case.name, "there was no time left for it")
        else:
            run.case(case, progress)


def wanted_cases():
    usual = quick_cases() if QUICK else cases()
    names = picked([c.name for c in cases()] + ["none"], "CASES", [c.name for c in usual])
    first = {c.name for c in quick_cases()}  # what matters most, should the time not be enough
    return sorted((c for c in cases() if c.name in names), key=lambda c: c.name not in first), names


def conditions(info, directory):
    cache = last_cache_bytes()
    info.update({"last cache": f"{cache >> 20} MiB", "rounds": ROUNDS, "rounds of goals": GOAL_ROUNDS, "seconds each": SECONDS, "size": f"{SIZE_MIB} MiB",
                 "seed": SEED, "mode": MODE})
    if cache * 2 > POOL_MIB << 20:
        info["cold pool"] = f"{POOL_MIB} MiB is less than twice the last cache, as far as that is known: the cold pool is lukewarm"
    return info


def finish(run, info, primitives, whole, start):
    info["seconds each"] = round(run.bench.seconds, 3)
    info["load after"], info["took"] = machine.one_word("/proc/loadavg"), f"{time.monotonic() - start:.0f} s"
    explained = dma_report.explanation_rows(run.results, primitives)
    if explained:
        run.say(dma_report.explanation_text(explained))
    run.say("Goals:\n" + dma_report.goals_text(dma_report.goal_rows(run.results)))
    others = sorted(run.others)[len(run.others) // 2] if run.others else 0.0
    info["others' processors"] = round(others, 3)
    if others > OTHERS_MOST:
        run.say(OTHERS_TEXT.format(others))
    run.say(f"load after: {info['load after']}; took {info['took']}")
    common = {"kind": "dma", "commit": info["commit"], "date": info["date"], "machine": info, "seed": SEED, "rounds": ROUNDS, "seconds_each": run.bench.seconds, "quick": QUICK}
    to = results_directory("dma", whole, info["commit"])
    dma_report.write_files(to, common, run, primitives, "\n".join(run.text) + "\n")
    print(f"{to}/dma.txt, .md, .json written")


def main():
    wanted, names = wanted_cases()
    if os.environ.get("CASES") == "list":
        return print("\n".join(c.name for c in cases()))
    strategies = picked(STRATEGIES, "STRATEGIES")
    if not names or not strategies or ROUNDS < 1:
        sys.exit("dma.py: CASES or STRATEGIES picks nothing, or no round; CASES=list names all cases; strategies: " + ", ".join(STRATEGIES))
    may_be_ended()
    machine.raise_descriptor_limit()
    preferred, start = machine.prefer(), time.monotonic()
    directory = tempfile.mkdtemp(prefix="dzd", dir="/tmp")
    bench = Bench(os.path.abspath(os.environ.get("BUILD") or "build/rows"), directory, directory, SIZE_MIB, SECONDS)
    peer = Strategies(MODE)
    info = conditions(machine.describe(directory, directory), directory)
    info["niceness"] = f"{machine.NICE}, autogroups too" if preferred else "not raised, expect more noise"
    run = Run(bench, peer, strategies)
    for line in (f"{k}: {v}" for k, v in info.items()):
        run.say(line)
    primitives, ended = [], None
    try:
        if any(c.image == "hot" for c in wanted):
            bench.make_image(bench.image["hot"])
        all_of(run, wanted, start, primitives)
    except Ended as e:
        ended = f"dma.py: {e}"
        run.leave_out("every strategy", "what was to follow", str(e))
    finally:
        peer.stop()
        shutil.rmtree(directory, ignore_errors=True)
    finish(run, info, primitives, not QUICK and len(wanted) == len(cases()) and strategies == list(STRATEGIES), start)
    sys.exit(ended)


main()
