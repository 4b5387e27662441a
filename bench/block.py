#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench/block.py: 4 KiB random I/O on a hot buffered file, through domzero and by plain io_uring on the same file, in turn.

What the numbers do not mean: nothing here says what a disk or a network can do; the file sits in the page cache. Two
processes share two cores with whatever else runs, so only ratios of the same round compare; their median over the rounds is
the result, minimum and maximum say how far to trust it. A wake-up across idle cores can cost ten times one on the same core,
so event-driven rows move with the scheduler's choices.

Writes bench/results/latest/block.json. Knobs: SECONDS_EACH (1), ROUNDS (5), SIZE_MIB (512), BUILD (build).
"""
import json, os, platform, shutil, statistics, subprocess, sys, tempfile, time

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
SECONDS = float(os.environ.get("SECONDS_EACH", "1"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SIZE_MIB = int(os.environ.get("SIZE_MIB", "512"))
SEED = int(os.environ.get("SEED", "1"))
HZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """CPU time of all threads of a process, io_uring's workers included."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def run(command, env=None):
    p = subprocess.run(command, env=env, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(command)}: {p.stderr.strip()}")
    return json.loads(p.stdout)


def warm(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


class Dom0:
    """One daemon with one guest and one disk."""

    def __init__(self, directory, image, mode):
        self.run_dir = f"{directory}/run"
        self.env = dict(os.environ, DOMZERO_RUN_DIR=self.run_dir)
        subprocess.run([f"{BUILD}/domzerod", "--run-dir", self.run_dir, "--poll", mode, "--log-level", "warning"], check=True)
        with open(f"{directory}/bench.cfg", "w") as f:
            f.write(f'name = "bench"\ndisk = ["format=raw,vdev=xvda,access=rw,target={image}"]\n')
        subprocess.run([f"{BUILD}/domzero", "create", f"{directory}/bench.cfg"], env=self.env, check=True, stdout=subprocess.DEVNULL)
        with open(f"{self.run_dir}/blk.pid") as f:
            self.blk = int(f.read())

    def load(self, args):
        before = cpu_seconds(self.blk)
        row = run([f"{BUILD}/domzero", "exec", "bench", "--", f"{BUILD}/bench/guest_blk", "-t", "xvda", *args], self.env)
        row["backend_cpu_us_per_io"] = (cpu_seconds(self.blk) - before) * 1e6 / max(row["done"], 1)
        return row

    def stop(self):
        subprocess.run([f"{BUILD}/domzero", "destroy", "bench"], env=self.env, check=True, stdout=subprocess.DEVNULL)
        with open(f"{self.run_dir}/domzerod.pid") as f:
            pid = int(f.read())
        os.kill(pid, 15)
        while os.path.exists(f"{self.run_dir}/domzerod.pid"):
            time.sleep(0.02)


def median(rows, key):
    return statistics.median(r[key] for r in rows)


def measure(dom0, image, mode, write, qd):
    ours, floor = [], []
    args = ["-q", str(qd), "-s", str(SECONDS)] + (["-w"] if write else [])
    for round_ in range(ROUNDS):
        warm(image)
        seed = ["-r", str(SEED + round_)]
        ours.append(dom0.load(args + seed + {"poll": ["-p"], "adaptive": ["-a"], "interrupt": []}[mode]))
        floor.append(run([f"{BUILD}/bench/floor_uring", "-t", image, *args, *seed]))
    ratios = [a["iops"] / b["iops"] for a, b in zip(ours, floor)]
    return {
        "op": "write" if write else "read", "qd": qd, "mode": mode,
        "iops": median(ours, "iops"), "iops_min": min(r["iops"] for r in ours), "iops_max": max(r["iops"] for r in ours),
        "p50_us": median(ours, "p50_us"), "p99_us": median(ours, "p99_us"),
        "cpu_s_per_mio": statistics.median(r["cpu_us_per_io"] + r["backend_cpu_us_per_io"] for r in ours),
        "sent_per_io": median(ours, "sent_per_io"), "received_per_io": median(ours, "received_per_io"),
        "floor_iops": median(floor, "iops"), "floor_p50_us": median(floor, "p50_us"), "floor_p99_us": median(floor, "p99_us"),
        "floor_cpu_s_per_mio": median(floor, "cpu_us_per_io"),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
    }


def machine():
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count(), "compiler": f"gcc {compiler}", "commit": commit,
            "seed": SEED, "seconds_each": SECONDS, "rounds": ROUNDS, "size_mib": SIZE_MIB}


HEAD = f"{'op':<6}{'qd':>4} {'waits by':<10}{'IOPS':>9}{'min':>9}{'max':>9}{'p50 us':>8}{'p99 us':>8}{'cpu s/M':>9}{'kicks':>8}{'events':>8}" \
       f"{'floor':>10}{'cpu s/M':>9}{'ratio':>7}{'min':>6}{'max':>6}"


def show(r):
    print(f"{r['op']:<6}{r['qd']:>4} {r['mode']:<10}{r['iops']:>9.0f}{r['iops_min']:>9.0f}{r['iops_max']:>9.0f}{r['p50_us']:>8.1f}{r['p99_us']:>8.1f}"
          f"{r['cpu_s_per_mio']:>9.2f}{r['sent_per_io']:>8.4f}{r['received_per_io']:>8.4f}{r['floor_iops']:>10.0f}{r['floor_cpu_s_per_mio']:>9.2f}"
          f"{r['ratio']:>7.2f}{r['ratio_min']:>6.2f}{r['ratio_max']:>6.2f}", flush=True)


def main():
    info = machine()
    print(__doc__.split("\n\n")[1])
    print("\n" + ", ".join(f"{k} {v}" for k, v in info.items()) + "\n\n" + HEAD, flush=True)
    directory = tempfile.mkdtemp(prefix="dzb", dir="/tmp")
    image = f"{directory}/bench.img"
    rows = []
    try:
        with open(image, "wb") as f:
            for _ in range(SIZE_MIB):
                f.write(os.urandom(1 << 20))
        for mode in ("poll", "adaptive", "interrupt"):
            dom0 = Dom0(directory, image, mode)
            try:
                for write in (False, True):
                    for qd in (1, 32):
                        rows.append(measure(dom0, image, mode, write, qd))
                        show(rows[-1])
            finally:
                dom0.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    os.makedirs("bench/results/latest", exist_ok=True)
    with open("bench/results/latest/block.json", "w") as f:
        json.dump({"machine": info, "rows": rows}, f, indent=1)
    print("\nbench/results/latest/block.json written; kicks and events are notifications per request, ratio is ours / floor")


main()
