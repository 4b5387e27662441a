# SPDX-License-Identifier: MIT
"""bench/store_peers.py: the three stores, started by scripts/peer-store.sh in a directory of their own, and how a case is measured
on one of them.

Clients are connections to domain 0's socket, or domains with a ring page each (bench/store_ring.h), the same for all. Client and server
have a processor each (the first, the last), or share the last.
"""
import json, os, shutil, subprocess, tempfile, time

import machine
from block_peers import CPUS, CannotRun
from store_cases import MANY, OURS

START_SECONDS, LOAD_SECONDS = 20, 120  # at the most


def lacking(peer):
    """Why a peer cannot be had here, or None."""
    if peer == OURS:
        return None
    p = subprocess.run(["scripts/peer-store.sh", "fetch"], capture_output=True, text=True)
    return (p.stderr.strip() or f"exit status {p.returncode}") if p.returncode else None


def memory_bytes(pid):
    """Pages that nobody else has."""
    return sum(int(machine.field(f"/proc/{pid}/smaps_rollup", f"Private_{k}").split()[0]) for k in ("Clean", "Dirty")) << 10


class Store:
    def __init__(self, peer, build):
        self.peer, self.build, self.holder, self.process = peer, build, None, None

    def start(self):
        self.directory = tempfile.mkdtemp(prefix="dzs", dir="/tmp")
        self.socket, self.log = f"{self.directory}/socket", f"{self.directory}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(["scripts/peer-store.sh", "run", self.peer, self.directory], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env=dict(os.environ, BUILD=self.build))
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log) as log:
                    raise CannotRun(log.read().strip()[-300:] or "it does not serve")
            time.sleep(0.02)
        with open(f"{self.directory}/store.pid") as f:
            self.pid = int(f.read())
        machine.prefer(self.pid)
        machine.pin(self.pid, {CPUS[-1]})

    def answers(self):
        return os.path.exists(self.socket) and subprocess.run(self.command("own", count=1), capture_output=True).returncode == 0

    def command(self, kind, clients=1, count=0, *more):
        return [str(a) for a in (f"{self.build}/bench/store_load", "-t", self.socket, "-k", kind, "-n", clients, "-N", count, *more)]

    def run(self, kind, clients=1, count=0, *more, cpu=CPUS[0]):
        """Runs a load, and returns its row."""
        try:
            p = subprocess.run(self.command(kind, clients, count, *more), capture_output=True, text=True, timeout=LOAD_SECONDS,
                               preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
            row = json.loads(p.stdout)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"{kind} did not come to an end")
        except ValueError:
            raise CannotRun(p.stderr.strip()[-300:] or f"exit status {p.returncode}")
        if row["errors"] or p.returncode:
            raise CannotRun(p.stderr.strip()[-300:] or f"{row['errors']} errors")
        return row

    def prepare(self, case):
        """What the case's load finds; returns what was learned of it: {"nodes" or "watches": what one takes, how many a second are made}."""
        learned = {}
        if case.nodes:
            self.weigh(learned, "nodes", case.nodes, lambda: self.run("fill", count=case.nodes))
        if case.children:
            self.run("children", count=case.children)
        if case.kind == "transaction":
            self.run("own", count=2 * case.clients)
        if case.watches:
            self.weigh(learned, "watches", case.watches, lambda: self.hold(case.watches))
        return learned

    def weigh(self, learned, what, count, make):
        before, start = memory_bytes(self.pid), time.monotonic()
        make()
        per_s = count / (time.monotonic() - start)
        if count >= MANY:
            learned[what] = {"bytes_each": (memory_bytes(self.pid) - before) / count, "made_per_s": per_s}

    def hold(self, watches):
        self.holder = subprocess.Popen(self.command("hold", 256, watches), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "held\n":
            raise CannotRun(f"{watches} watches cannot be set: {self.holder.stderr.read().strip()[-200:]}")

    def measure(self, case, seconds, seed):
        if case.kind == "ls":
            return self.list_all(case)
        rings = ["-R", self.directory] if case.rings else []
        return self.run(case.kind, case.clients, case.nodes, "-s", seconds, "-w", seconds / 5, "-r", seed, "-c", self.pid, *rings,
                        cpu=CPUS[-1] if case.one_core else CPUS[0])

    def list_all(self, case):
        """xenstore-ls from its start to its end; its nodes are those of the case and their directories."""
        env = dict(os.environ, XENSTORED_PATH=self.socket)
        before = time.monotonic(), machine.children_seconds(), machine.cpu_seconds(self.pid)
        p = subprocess.run(["xenstore-ls", "/bench/n"], env=env, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, {CPUS[0]}))
        elapsed, client, server = time.monotonic() - before[0], machine.children_seconds() - before[1], machine.cpu_seconds(self.pid) - before[2]
        nodes = p.stdout.count(b"\n")
        if p.returncode or nodes != case.nodes + case.nodes // 100:
            raise CannotRun(f"xenstore-ls lists {nodes} nodes, exit status {p.returncode}: {p.stderr.decode().strip()[-200:]}")
        return {"per_s": nodes / elapsed, "server_us": server * 1e6 / nodes, "client_us": client * 1e6 / nodes, "client_busy": client / elapsed,
                "server_busy": server / elapsed, "done": nodes, "elapsed_s": elapsed}

    def stop(self):
        if self.holder:
            self.holder.communicate()
            self.holder = None
        if not self.process:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)
        os.unlink(self.log)
