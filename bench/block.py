#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/block.py: block I/O through domzero, by plain io_uring on the same file, and through others' servers, in turn.

What the numbers do not mean: nothing here says what a network can do, and little what a disk can: most files sit in the page cache.
Two processes share a few processors with whatever else runs, so only ratios of the same round compare; their median over the
rounds is the result, least and most say how far to trust it. A wake-up across idle processors can cost ten times one on the
same, so rows that sleep move with the scheduler's choices. The vhost-user client has constant requests and no virtual machine
around it, which flatters its servers.

Each case runs its peers one after another, A B C, A B C, for ROUNDS rounds of SECONDS_EACH; the file is read (for
writes: written) before each, so that it is in the page cache. Before a round it is written out, for O_DIRECT dropped
from there, too. Knobs:

  ROUNDS=5 SECONDS_EACH=0.5 SIZE_MIB=512 SEED=1 IDLE_DISKS=256 NICENESS=-15 BUILD=build
  CASES, PEERS   patterns, by commas, that match whole names or those up to a dash: CASES=hot-read-qd32,null; CASES=list names all,
                 CASES='*' runs all, some of which are left out otherwise
  RESULTS        where to; otherwise a run of everything goes to bench/results/block-DATE-COMMIT/, others to bench/results/latest/
"""
import os, shutil, signal, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
import block_idle, block_report, machine
from block_cases import cases
from block_peers import PEERS, Bench, CannotRun, Domzero
from driver import OTHERS_MOST, OTHERS_TEXT, picked, results_directory

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS_EACH", "0.5"))
SEED = int(os.environ.get("SEED", "1"))


class Hogs:
    """A busy process on each processor, for as long as it is entered, as dear to the scheduler as what is measured."""

    def __init__(self, wanted):
        self.cpus, self.pids = sorted(os.sched_getaffinity(0)) if wanted else [], []

    def __enter__(self):
        for cpu in self.cpus:
            pid = os.fork()
            if pid == 0:
                os.sched_setaffinity(0, {cpu})
                parent = os.getppid()
                while os.getppid() == parent:
                    for _ in range(100000):
                        pass
                os._exit(0)
            self.pids.append(pid)
        return self

    def __exit__(self, *_):
        for pid in self.pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def servers():
    pids = []
    for p in PEERS.values():
        if isinstance(p, Domzero):
            pids += [p.pid(role) for role in ("hypervisor", "store", "blk")] if p.run_dir else []
        elif getattr(p, "process", None):
            pids.append(p.process.pid)
    return pids


def measure(bench, case, name, round_):
    """One row, with the processors that others used meanwhile."""
    peer = PEERS[name]
    if bench.path(case) and not case.direct:
        (machine.soil if case.write else machine.warm)(bench.path(case))
    with Hogs(case.hogs) as hogs:
        clocks = lambda: machine.children_seconds() + time.process_time() + sum(machine.cpu_seconds(p) for p in servers() + hogs.pids)
        before = machine.busy_seconds(), clocks(), time.monotonic()
        row = peer.measure(bench, case, SEED + round_)
        busy, ours, wall = machine.busy_seconds() - before[0], clocks() - before[1], time.monotonic() - before[2]
    row["others_cpu"] = max(0.0, (busy - ours) / wall)
    return row


class Run:
    """All that a run of the benchmark learns."""

    def __init__(self, bench):
        self.bench, self.results, self.left_out, self.text, self.apart_ns = bench, {}, [], [], {}

    def say(self, text=""):
        print(text, flush=True)
        self.text.append(text)

    def leave_out(self, case, name, why):
        self.left_out.append({"case": case.name, "peer": name, "why": why})
        self.say(f"{case.name}: without {name}: {why}")

    def case(self, case):
        present = []
        for name in picked(case.peers, "PEERS"):
            why = self.bench.no_tmpfs if case.image == "tmpfs" else None
            why = why or PEERS[name].missing(self.bench, case)
            if why:
                self.leave_out(case, name, why)
            else:
                present.append(name)
        rows, apart = {name: [] for name in present}, []
        for round_ in range(ROUNDS):
            apart += self.apart()
            if self.bench.path(case):
                machine.write_out(self.bench.path(case), drop=case.direct)
            for name in present:
                try:
                    rows[name].append(measure(self.bench, case, name, round_))
                except CannotRun as e:
                    self.leave_out(case, name, f"round {round_ + 1}: {e}")
                    rows[name].append(None)
                    PEERS[name].stop()  # what it left behind is gone before the next case
            present = [n for n in present if rows[n][-1]]
        for name in rows:
            if not isinstance(PEERS[name], Domzero):
                PEERS[name].stop()
        self.results[case.name] = rows
        if any(r for rounds in rows.values() for r in rounds):
            self.apart_ns[case.name] = apart
            self.say(block_report.case_text(case, rows, apart))

    def apart(self):
        """[how long a word takes from the first processor to the last and back, in ns]; [] where there is only one."""
        p = subprocess.run([f"{self.bench.build}/bench/line"], capture_output=True, text=True)
        return [int(p.stdout)] if p.returncode == 0 else []

    def idle(self):
        peer = block_idle.ManyGuests(int(os.environ.get("IDLE_DISKS", "256")))
        try:
            row = peer.measure(self.bench, block_idle.CASE, SEED)
            self.results[block_idle.CASE.name] = {"domzero-adaptive": [row]}
            self.say(block_idle.text(row))
        except CannotRun as e:
            self.leave_out(block_idle.CASE, "domzero-adaptive", str(e))
        finally:
            peer.stop()


def all_of(run, names, info):
    for line in (f"{k}: {v}" for k, v in info.items()):
        run.say(line)
    run.say("\n" + block_report.EXPLAINED + "\n")
    for case in cases():
        if case.name in names:
            run.case(case)
    if block_idle.CASE.name in names:
        run.idle()


def main():
    every = [c.name for c in cases()] + [block_idle.CASE.name]
    if os.environ.get("CASES") == "list":
        return print("\n".join(every))
    usual = [n for n in every if n not in [c.name for c in cases() if c.extra]]
    names = picked(every, "CASES", usual)
    if not names or ROUNDS < 1:
        sys.exit("block.py: CASES picks nothing; CASES=list names all" if ROUNDS > 0 else "block.py: ROUNDS is at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("block.py: terminated"))
    machine.raise_descriptor_limit()
    preferred = machine.prefer()
    directory = tempfile.mkdtemp(prefix="dzb", dir="/tmp")
    tmpfs = tempfile.mkdtemp(prefix="dzb", dir="/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
    bench = Bench(os.path.abspath(os.environ.get("BUILD", "build")), directory, tmpfs, int(os.environ.get("SIZE_MIB", "512")), SECONDS)
    info = machine.describe(directory, tmpfs)
    info.update({"niceness": f"{machine.NICE}, autogroups too" if preferred else "not raised, expect more noise",
                 "rounds": ROUNDS, "seconds each": SECONDS, "size": f"{bench.size_bytes >> 20} MiB", "seed": SEED})
    run, start = Run(bench), time.monotonic()
    try:
        bench.make_images()
        all_of(run, names, info)
    finally:
        for p in PEERS.values():
            p.stop()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(tmpfs, ignore_errors=True)
    info["load after"] = machine.one_word("/proc/loadavg")
    info["took"] = f"{time.monotonic() - start:.0f} s"
    run.say(block_report.goals_text([r for r in block_report.goal_rows(run.results) if r["case"] in names]))
    others = block_report.others(run.results)
    if others > OTHERS_MOST:
        run.say(OTHERS_TEXT.format(others))
    run.say(f"load after: {info['load after']}; took {info['took']}")
    to = results_directory("block", set(names) >= set(usual) and not os.environ.get("PEERS"), info["commit"])
    said = block_report.write_files(to, info, cases(), run, "\n".join(run.text) + "\n")
    print(f"{to}/block.txt, .csv, .json, .svg written" + (f"; {said}" if said else ""))


main()
