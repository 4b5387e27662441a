# SPDX-License-Identifier: MIT
"""bench/block_peers.py: how each side of the comparison is run. A peer measures one case once and gives a row, the JSON
that its load printed; it says why it cannot, where it cannot.

What polls on both sides has a processor for each side (the client the first, the server the last), for that is its best
case, as long as io_uring needs no workers, which a spinner on a pinned processor would starve: not for writes, not on
tmpfs. What sleeps is left to the scheduler. No peer locks the image, so that they can take turns on it; ours is detached
after each measurement.
"""
import json, os, shutil, signal, subprocess, time

import machine

CPUS = sorted(os.sched_getaffinity(0))


class CannotRun(Exception):
    """A peer that is not here, or that failed: the sentence goes into the report."""


class Bench:
    """Where everything is: programs, images, the directory of this run; how long a measurement lasts."""

    def __init__(self, build, directory, tmpfs, size_mib, seconds):
        self.build, self.directory, self.seconds = build, directory, seconds
        self.size_bytes = size_mib << 20
        self.image = {"hot": f"{directory}/hot.img", "tmpfs": f"{tmpfs}/tmpfs.img"}
        self.no_tmpfs = None  # why

    def make_image(self, path):
        with open(path, "wb") as f:
            for _ in range(self.size_bytes >> 20):
                f.write(os.urandom(1 << 20))
        machine.write_out(path, drop=True)  # blocks are allocated now, not in somebody's measurement

    def make_images(self):
        self.make_image(self.image["hot"])
        try:
            self.make_image(self.image["tmpfs"])
        except OSError as e:
            self.no_tmpfs = str(e)

    def path(self, case):
        return self.image.get(case.image)

    def load_args(self, case, seed, place=False):
        args = ["-q", case.qd, "-b", case.block_bytes, "-j", case.threads, "-s", self.seconds, "-r", seed]
        args += ["-w"] * case.write + ["-S"] * case.sequential + ["-P"] * place
        return [str(a) for a in args]

    def load(self, command, cpus, env=None):
        """Runs a load, on these processors, and returns its row."""
        place = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        try:
            p = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=place, timeout=self.seconds * 20 + 60)
            row = json.loads(p.stdout)
        except subprocess.TimeoutExpired:
            raise CannotRun("it did not come to an end")
        except ValueError:
            raise CannotRun(p.stderr.strip() or f"exit status {p.returncode}")
        if row["errors"]:
            raise CannotRun(f"{row['errors']} of {row['done']} requests failed")
        return row


def places(case, polls):
    """Processors of client and server; None: as the scheduler likes."""
    if case.one_core:
        return {CPUS[-1]}, {CPUS[-1]}
    workers = case.image == "tmpfs" or case.write and case.image != "null"
    if polls and not case.hogs and not workers and len(CPUS) > 1:
        return {CPUS[0]}, {CPUS[-1]}
    return None, None


class Floor:
    """Plain io_uring on the same file, or on nothing."""

    def missing(self, bench, case):
        return None

    def measure(self, bench, case, seed):
        client, _ = places(case, False)
        args = ["-n"] if case.image == "null" else ["-d"] if case.direct else []
        return bench.load([f"{bench.build}/bench/floor_uring", "-t", bench.path(case) or "-", *args, *bench.load_args(case, seed, case.threads > 1)], client)

    def stop(self):
        pass


class Domzero:
    """One daemon, which waits as `mode` says, and one guest with one disk at a time. The daemon stays for the next. With `pairs`
    the thread of the guest that has queue i and reactor i share a processor."""

    def __init__(self, mode, dma="pin", reactors=0, pairs=False):
        self.mode, self.dma, self.reactors, self.pairs, self.run_dir = mode, dma, reactors, pairs, None

    pinned_modes, disk_options = ("poll",), ()

    def missing(self, bench, case):
        return None

    def guest_options(self, case):
        return []

    def complete(self, row):
        """What else is known of a row, while its disk is still there."""
        return row

    def call(self, *args):
        p = subprocess.run([f"{self.build}/domzero", *args], env=self.env, capture_output=True, text=True)
        if p.returncode:
            raise CannotRun((p.stderr or p.stdout).strip())
        return p.stdout

    def start(self, bench, name="dom0"):
        self.build = bench.build
        self.run_dir = f"{bench.directory}/{name}.{id(self)}"
        self.env = dict(os.environ, DOMZERO_RUN_DIR=self.run_dir)
        command = [f"{self.build}/domzerod", "--run-dir", self.run_dir, "--poll", self.mode, "--log-level", "warning"]
        command += ["--reactors", str(self.reactors)] * (self.reactors > 0)
        p = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if p.returncode:
            self.run_dir = None
            raise CannotRun(p.stderr.strip())
        for role in ("domzerod", "hypervisor", "store", "blk"):
            machine.prefer(self.pid(role))

    def pid(self, role):
        with open(f"{self.run_dir}/{role}.pid") as f:
            return int(f.read())

    def create(self, bench, case, name="bench", path=None):
        options = [f"dma={self.dma}", f"max-queues={case.threads}"]
        options += ["direct-io=1"] * case.direct
        options += [f"image=null,size={bench.size_bytes}"] * (case.image == "null")
        options += self.disk_options
        with open(f"{self.run_dir}/{name}.cfg", "w") as f:
            f.write(f'name = "{name}"\ndisk = ["format=raw,vdev=xvda,access=rw,target={path or bench.path(case) or "/dev/null"}"]\n')
            f.write(f'disk_options = ["xvda,{",".join(options)}"]\n')
        self.call("create", f.name)

    def pin_pairs(self, blk):
        """The reactors are the threads that the role made first, after its own."""
        tids = sorted(int(t) for t in os.listdir(f"/proc/{blk}/task"))
        tids = [t for t in tids if not machine.one_word(f"/proc/{blk}/task/{t}/comm").startswith("iou-")]
        for i, tid in enumerate(tids[1:1 + self.reactors]):
            os.sched_setaffinity(tid, {CPUS[i % len(CPUS)]})

    def measure(self, bench, case, seed):
        if not self.run_dir:
            self.start(bench)
        client, server = places(case, self.mode in self.pinned_modes)
        blk = self.pid("blk")
        self.create(bench, case)
        try:
            machine.pin(blk, server or CPUS)
            if self.pairs:
                self.pin_pairs(blk)
            wait = {"poll": ["-p"], "adaptive": ["-a"], "interrupt": []}[self.mode]
            guest = [f"{bench.build}/bench/guest_blk", "-t", "xvda", "-c", str(blk), *wait, *bench.load_args(case, seed, self.pairs)]
            row = bench.load([f"{bench.build}/domzero", "exec", "bench", "--", *guest, *self.guest_options(case)], client, self.env)
            return self.complete(row)
        finally:
            machine.pin(blk, CPUS)
            self.call("destroy", "bench")

    def stop(self):
        if self.run_dir:
            pid = self.pid("domzerod")
            os.kill(pid, signal.SIGTERM)
            while os.path.exists(f"{self.run_dir}/domzerod.pid"):
                time.sleep(0.01)
            self.run_dir = None


class Server:
    """A peer that is one process behind a socket; it is started for a case and stays for its rounds."""

    def __init__(self):
        self.process = None

    def start(self, bench, command):
        self.socket = f"{bench.directory}/peer.{id(self)}"
        with open(f"{bench.directory}/peer.log", "w") as log:
            self.process = subprocess.Popen([a.replace("@SOCKET@", self.socket) for a in command], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(f"{bench.directory}/peer.log") as log:
                    raise CannotRun(f"{command[0]}: {log.read().strip() or 'it does not listen'}")
            time.sleep(0.01)
        time.sleep(0.1)

    def stop(self):
        if not self.process:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        if os.path.exists(self.socket):
            os.unlink(self.socket)


def lacks(*programs):
    gone = [p for p in programs if not shutil.which(p)]
    return f"{', '.join(gone)} not installed" if gone else None


class QemuVhost(Server):
    """qemu-storage-daemon's vhost-user-blk with AIO by io_uring, driven by bench/vhost_blk.c."""

    def __init__(self, polls, iothread):
        super().__init__()
        self.polls, self.iothread = polls, iothread

    def missing(self, bench, case):
        return lacks("qemu-storage-daemon")

    def command(self, bench, case):
        direct = "on" if case.direct else "off"
        node = f"driver=file,node-name=disk,filename={bench.path(case)},aio=io_uring,locking=off,cache.direct={direct}"
        if case.image == "null":
            node = f"driver=null-co,node-name=disk,size={bench.size_bytes},read-zeroes=off"
        export = "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=@SOCKET@,writable=on"
        thread = ["--object", "iothread,id=thread"] if self.iothread else []
        return ["qemu-storage-daemon", *thread, "--blockdev", node, "--export", export + (",iothread=thread" if thread else "")]

    def measure(self, bench, case, seed):
        if not self.process:
            self.start(bench, self.command(bench, case))
        client, server = places(case, self.polls)
        machine.pin(self.process.pid, server or CPUS)
        args = ["-t", self.socket, "-c", str(self.process.pid), *["-p"] * self.polls, *bench.load_args(case, seed)]
        return bench.load([f"{bench.build}/bench/vhost_blk", *args], client)


class Nbd(Server):
    """An NBD server on a unix socket, driven by fio's nbd engine. fio's own time counts as the client's."""

    def __init__(self, program):
        super().__init__()
        self.program = program

    def missing(self, bench, case):
        if lacks(self.program, "fio"):
            return lacks(self.program, "fio")
        engines = subprocess.run(["fio", "--enghelp"], capture_output=True, text=True).stdout.split()
        return None if "nbd" in engines else "fio has no nbd engine here"

    def command(self, bench, case):
        if self.program == "nbdkit":
            return ["nbdkit", "--foreground", "--unix", "@SOCKET@", "file", bench.path(case)]
        node = f"driver=raw,file.driver=file,file.filename={bench.path(case)},file.locking=off"
        cache = "none" if case.direct else "writeback"
        return ["qemu-nbd", "--persistent", "--image-opts", "--aio=io_uring", f"--cache={cache}", "--socket=@SOCKET@", node]

    def measure(self, bench, case, seed):
        if not self.process:
            self.start(bench, self.command(bench, case))
        how = ("" if case.sequential else "rand") + ("write" if case.write else "read")
        options = {
            "name": "bench", "output-format": "json", "ioengine": "nbd", "uri": f"nbd+unix:///?socket={self.socket}", "rw": how, "bs": case.block_bytes,
            "iodepth": case.qd, "size": bench.size_bytes, "runtime": f"{round(bench.seconds * 1000)}ms", "time_based": 1, "norandommap": 1, "randseed": seed,
            "invalidate": 0, "fadvise_hint": 0, "lat_percentiles": 1, "clat_percentiles": 0, "percentile_list": "50:99:99.9",
        }
        before = machine.cpu_seconds(self.process.pid)
        p = subprocess.run(["fio", *(f"--{k}={v}" for k, v in options.items())], capture_output=True, text=True, cwd=bench.directory)
        server = machine.cpu_seconds(self.process.pid) - before
        try:
            job = json.loads(p.stdout[p.stdout.index("{"):])["jobs"][0]
            return self.row(job, job["write" if case.write else "read"], server)
        except (ValueError, LookupError, ZeroDivisionError):
            raise CannotRun(f"fio: {p.stderr.strip()[:200] or 'no result'}")

    def row(self, job, d, server):
        client = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
        p = d["lat_ns"]["percentile"]
        return {
            "iops": d["iops"], "gib_s": d["bw_bytes"] / 2**30, "p50_us": p["50.000000"] / 1000, "p99_us": p["99.000000"] / 1000,
            "p999_us": p["99.900000"] / 1000, "cpu_us_per_io": (client + server) * 1e6 / d["total_ios"],
            "client_cpu_us_per_io": client * 1e6 / d["total_ios"], "done": d["total_ios"], "errors": job["error"], "elapsed_s": d["runtime"] / 1000,
        }


PEERS = {
    "floor": Floor(),
    "domzero-poll": Domzero("poll"),
    "domzero-adaptive": Domzero("adaptive"),
    "domzero-interrupt": Domzero("interrupt"),
    "domzero-copy": Domzero("adaptive", dma="copy"),
    "domzero-reactors": Domzero("interrupt", reactors=2),
    "domzero-pairs": Domzero("interrupt", reactors=2, pairs=True),
    "domzero-pairs-adaptive": Domzero("adaptive", reactors=2, pairs=True),
    "qsd-poll": QemuVhost(polls=True, iothread=False),
    "qsd-iothread": QemuVhost(polls=True, iothread=True),
    "qsd-interrupt": QemuVhost(polls=False, iothread=False),
    "qemu-nbd": Nbd("qemu-nbd"),
    "nbdkit": Nbd("nbdkit"),
}
