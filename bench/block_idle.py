# SPDX-License-Identifier: MIT
"""bench/block_idle.py: what disks cost that do nothing: many guests with a connected disk each on one block role, each of
which has done one request. Processor time over some seconds of rest, memory as the difference that connecting made:
private dirty pages and the proportional share (PSS), which has the guests' own memory in it where the role maps it.
"""
import subprocess, time

import machine
from block_cases import Case
from block_peers import CannotRun, Domzero

CASE = Case("idle-disks", "disks that are connected and rest", ("domzero-adaptive",), 1)
REST_SECONDS = 3


def memory_kib(pid):
    kib = {}
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f.readlines()[1:]:
            key, value = line.split(":")
            kib[key] = int(value.split()[0])
    return kib["Private_Dirty"] + kib.get("Swap", 0), kib["Pss"]


class ManyGuests(Domzero):
    def __init__(self, disks):
        super().__init__("adaptive")
        self.disks = disks

    def directories(self, bench):
        """Makes the guests, each with a file of its own, and says where they are."""
        for i in range(self.disks):
            path = f"{bench.directory}/idle{i}.img"
            with open(path, "wb") as f:
                f.truncate(1 << 20)
            self.create(bench, CASE, f"idle{i}", path)
        domids = [line.split()[1] for line in self.list_lines()]
        return [f"{self.run_dir}/dom/{d}" for d in domids]

    def list_lines(self):
        p = subprocess.run([f"{self.build}/domzero", "list"], env=self.env, capture_output=True, text=True)
        return [line for line in p.stdout.splitlines() if line.startswith("idle")]

    def measure(self, bench, case, seed):
        self.start(bench, "idle")
        directories = self.directories(bench)
        blk = self.pid("blk")
        dirty, pss = memory_kib(blk)
        guests = subprocess.Popen([f"{bench.build}/bench/guest_idle", "xvda", *directories], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = guests.stdout.readline().split()
        if not said:
            raise CannotRun(guests.stderr.read().strip())
        time.sleep(0.5)  # what connecting left to do is done
        dirty_after, pss_after = memory_kib(blk)
        cpu, rest = machine.cpu_seconds(blk), min(REST_SECONDS, bench.seconds * 10)
        time.sleep(rest)
        cpu = machine.cpu_seconds(blk) - cpu
        guests.stdin.close()
        guests.wait()
        return {"disks": self.disks, "done": self.disks, "errors": 0, "connect_ms": float(said[1]), "cpu_percent": cpu / rest * 100,
                "private_kib_per_disk": (dirty_after - dirty) / self.disks, "pss_kib_per_disk": (pss_after - pss) / self.disks}


def text(row):
    return (f"{CASE.name}: {row['disks']} {CASE.title}\n  CPU {row['cpu_percent']:.3f} % of one processor, {row['private_kib_per_disk']:.1f} KiB private dirty and "
            f"{row['pss_kib_per_disk']:.1f} KiB PSS a disk; connected one after another in {row['connect_ms']:.0f} ms\n")
