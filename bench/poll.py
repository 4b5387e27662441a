#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/poll.py: what it costs and brings to look for requests instead of being told of them: `interrupt`, `poll` and `adaptive`, in
turn, by arrivals of many kinds (poll_cases.py), made by bench/guest_poll.c.

In a closed loop both ends wait by the mode. In an open loop and in bursts the guests are programs with an event loop, the same
for all modes, so that only the server differs. Client and server are pinned: with two processors each end has its own, and
what sleeps pays for waking another processor, as it does in a virtual machine; with one they share it.

The disk is one without bytes (image=null) unless STORAGE=hot: it is the wait that is compared, and a file's own cost, the same in
all modes, would only make the ratios look better.

Only ratios of the same round compare; a goal looks at the median of these. Where a load is so low that what the modes use differs by
less than from one moment to the next, goals look at rounds in which two modes had it side by side, at the same time. Knobs:

  ROUNDS=5 BESIDE=12 SECONDS_EACH=0.25 SEED=1 STORAGE=null SIZE_MIB=64 NICENESS=-15 BUILD=build
                 loads that no goal compares by rounds have half the rounds
  QUICK=1        short rounds of the loads that goals look at
  LOADS, MODES   patterns, by commas: LOADS='poisson-1000-*,closed-*-1d-2c' MODES=adaptive,poll; LOADS=list names all
  REPORT_SECONDS it is to be done in less: goals' loads first, and leaves out what there is no time for
  RESULTS        where to; otherwise a run of everything goes to bench/results/poll-DATE-COMMIT/, others to bench/results/latest/
"""
import concurrent.futures, os, shutil, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
import machine, poll_report
from block_peers import CPUS, Bench, CannotRun, Domzero
from driver import BUDGET, OTHERS_MOST, OTHERS_TEXT, QUICK, Ended, Progress, may_be_ended, out_of_time, picked, results_directory
from poll_cases import MODES, goals, loads

ROUNDS = int(os.environ.get("ROUNDS") or (2 if QUICK else 5))
BESIDE = int(os.environ.get("BESIDE") or (6 if QUICK else 12))
SECONDS = float(os.environ.get("SECONDS_EACH") or (0.15 if QUICK else 0.25))
SEED = int(os.environ.get("SEED") or 1)
STORAGE = os.environ.get("STORAGE") or "null"
CORES = min(2, len(CPUS))


class Server(Domzero):
    """A daemon that waits in one way, and as many domains with a disk as the widest load takes. They stay for the run."""

    def __init__(self, mode):
        super().__init__(mode)
        self.directories = []

    def add(self, bench):
        i = len(self.directories)
        disk = f"format=raw,vdev=xvda,access=r,target={bench.image['hot'] if STORAGE == 'hot' else '/dev/null'}"
        with open(f"{self.run_dir}/guest{i}.cfg", "w") as f:
            f.write(f'name = "guest{i}"\ndisk = ["{disk}"]\n')
            if STORAGE == "null":
                f.write(f'disk_options = ["xvda,image=null,size={bench.size_bytes}"]\n')
        self.call("create", f.name)
        p = subprocess.run([f"{self.build}/domzero", "list"], env=self.env, capture_output=True, text=True)
        domid = next(line.split()[1] for line in p.stdout.splitlines() if line.split()[0] == f"guest{i}")
        self.directories.append(f"{self.run_dir}/dom/{domid}")

    def measure(self, bench, load, seed):
        if not self.run_dir:
            self.start(bench)
        while len(self.directories) < load.devices:
            self.add(bench)
        blk, client = self.pid("blk"), CPUS[0] if load.cores > 1 else CPUS[-1]
        machine.pin(blk, {CPUS[-1]})
        wait = {"poll": ["-p"], "adaptive": ["-a"], "interrupt": []}[self.mode]
        command = [f"{bench.build}/bench/guest_poll", "-c", blk, "-A", client, "-s", bench.seconds, "-W", bench.seconds / 4, "-r", seed,
                   *wait, *load.args(), *self.directories[:load.devices]]
        return bench.load([str(c) for c in command], None)


class Run:
    def __init__(self, bench, modes):
        self.bench, self.servers = bench, {m: Server(m) for m in modes}
        self.results, self.beside, self.left_out, self.start = {}, {}, [], time.monotonic()

    def measure(self, load, mode, seed):
        try:
            return self.servers[mode].measure(self.bench, load, seed)
        except CannotRun as e:
            self.left_out.append({"load": load.name(), "mode": mode, "why": str(e)})
            return None

    def load(self, load):
        rows = self.results[load] = {m: [] for m in self.servers}
        for round_ in range(rounds_of(load)):
            order = list(rows)
            for mode in order[round_ % len(order):] + order[:round_ % len(order)]:
                rows[mode].append(self.measure(load, mode, SEED + round_))
        for goal in goals(CORES):
            if goal.beside and goal.load == load and load not in self.beside and {goal.ours, goal.to} <= set(rows):
                self.side_by_side(load, (goal.ours, goal.to))
        print(poll_report.load_text(load, rows), flush=True)

    def side_by_side(self, load, modes):
        self.beside[load] = {m: [] for m in modes}
        with concurrent.futures.ThreadPoolExecutor(len(modes)) as threads:
            for round_ in range(BESIDE):
                under_way = [threads.submit(self.measure, load, m, SEED + 2 * round_ + i) for i, m in enumerate(modes)]
                for mode, row in zip(modes, under_way):
                    self.beside[load][mode].append(row.result())

    def ours_seconds(self):
        """Processor time of this program, of all guests that ended, and of the servers."""
        pids = [s.pid(role) for s in self.servers.values() if s.run_dir for role in ("hypervisor", "store", "blk")]
        return time.process_time() + machine.children_seconds() + sum(machine.cpu_seconds(p) for p in pids)

    def stop(self):
        for s in self.servers.values():
            s.stop()


def rounds_of(load):
    return ROUNDS if any(g.load == load and not g.beside and not g.minus for g in goals(CORES)) else max(1, ROUNDS // 2)


def main():
    every = loads(CORES)
    if os.environ.get("LOADS") == "list":
        return print("\n".join(l.slug() for l in every))
    wanted = [g.load for g in goals(CORES)] if QUICK else every
    names, modes = picked([l.slug() for l in every], "LOADS"), picked(MODES, "MODES")
    chosen = [l for l in every if l.slug() in names and (l in wanted or os.environ.get("LOADS"))]
    if not chosen or not modes or ROUNDS < 1 or STORAGE not in ("null", "hot"):
        sys.exit("poll.py: nothing to measure: LOADS=list names all, MODES are " + ", ".join(MODES) + ", STORAGE null or hot, ROUNDS at least 1")
    may_be_ended()
    machine.raise_descriptor_limit()
    preferred = machine.prefer()
    directory = tempfile.mkdtemp(prefix="dzp", dir="/tmp")
    bench = Bench(os.path.abspath(os.environ.get("BUILD") or "build"), directory, directory, int(os.environ.get("SIZE_MIB") or 64), SECONDS)
    info = machine.describe(directory, directory)
    info["niceness"] = f"{machine.NICE}, autogroups too" if preferred else "not raised, expect more noise"
    run, progress = Run(bench, modes), Progress(len(chosen), len(chosen))
    busy, ended = machine.busy_seconds() - run.ours_seconds(), None
    try:
        if STORAGE == "hot":
            bench.make_image(bench.image["hot"])
            machine.warm(bench.image["hot"])
        for load in sorted(chosen, key=lambda l: l not in [g.load for g in goals(CORES)]) if BUDGET else chosen:
            if out_of_time(run.start):
                run.left_out.append({"load": load.name(), "mode": "all modes", "why": "there was no time left for it"})
            else:
                progress.case(load.name())
                run.load(load)
                progress.step()
    except Ended as e:
        ended = f"poll.py: {e}"
        run.left_out.append({"load": "what was to follow", "mode": "all modes", "why": str(e)})
    finally:
        info["others"] = round(max(0.0, (machine.busy_seconds() - run.ours_seconds() - busy) / (time.monotonic() - run.start)), 2)
        run.stop()
        shutil.rmtree(directory, ignore_errors=True)
    info["load after"] = machine.one_word("/proc/loadavg")
    whole = chosen == every and len(modes) == len(MODES) and not QUICK
    result = poll_report.result(info, run, goals(CORES), {"seed": SEED, "rounds": ROUNDS, "rounds_beside": BESIDE, "seconds_each": SECONDS, "quick": QUICK, "storage": STORAGE})
    to = results_directory("poll", whole, info["commit"])
    print(poll_report.write_files(to, result))
    if info["others"] > OTHERS_MOST:
        print(OTHERS_TEXT.format(info["others"]))
    print(f"{to}/poll.json, poll.md written; took {time.monotonic() - run.start:.0f} s")
    sys.exit(ended)


main()
