# SPDX-License-Identifier: MIT
"""bench/block_cases.py: what is measured, and against what it is held. A case is one load and the peers that take turns on
it; a goal is a row of the table that the project promised, and reads figures of one case. Ratios are medians of the
rounds' ratios; "floor" is plain io_uring with fixed file and buffers on the same file, one thread.
"""
from dataclasses import dataclass, field

OURS = ("domzero-poll", "domzero-adaptive", "domzero-interrupt")
QSD = ("qsd-poll", "qsd-interrupt")
NBD = ("qemu-nbd", "nbdkit")
PAIRS = ("domzero-reactors", "domzero-pairs", "domzero-pairs-adaptive")


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    peers: tuple
    qd: int
    write: bool = False
    block_bytes: int = 4096
    sequential: bool = False
    direct: bool = False
    image: str = "hot"  # a file on the disk's file system, "tmpfs", or "null": no bytes at all
    threads: int = 1
    one_core: bool = False
    hogs: bool = False  # a busy process on each processor beside it
    extra: bool = False  # run only where CASES names it


def cases():
    all_ = []
    for op, write in (("read", False), ("write", True)):
        for qd in (1, 8, 32, 128):
            copy = ("domzero-copy",) if not write or qd == 32 else ()
            peers = ("floor", *OURS, *copy, *QSD, *(NBD if qd != 8 else ()))
            all_.append(Case(f"hot-{op}-qd{qd}", f"page cache, 4 KiB random {op}, QD {qd}", peers, qd, write))
    all_.append(Case("two-queues-qd32", "page cache, 4 KiB random read, two queues of QD 32, two threads", ("floor", *OURS[:2], *PAIRS), 32, threads=2))
    all_.append(Case("one-core-qd1", "page cache, 4 KiB random read, QD 1, both ends on one processor", ("floor", *OURS, "qsd-interrupt"), 1, one_core=True))
    all_.append(Case("one-core-qd32", "page cache, 4 KiB random read, QD 32, both ends on one processor", ("floor", *OURS, "qsd-interrupt"), 32, one_core=True))
    all_.append(Case("hog-qd1", "page cache, 4 KiB random read, QD 1, beside a busy process on each processor", OURS, 1, hogs=True))
    all_.append(Case("hog-qd32", "page cache, 4 KiB random read, QD 32, beside a busy process on each processor", OURS, 32, hogs=True))
    for op, write in (("read", False), ("write", True)):
        all_.append(Case(f"seq-{op}-qd8", f"page cache, 128 KiB sequential {op}, QD 8", ("floor", *OURS, *QSD, *NBD), 8, write, 131072, True))
    for op, write in (("read", False), ("write", True)):
        for qd in (1, 8, 32, 128):
            nbd = () if write else ("qemu-nbd",)
            all_.append(Case(f"direct-{op}-qd{qd}", f"O_DIRECT, 4 KiB random {op}, QD {qd}", ("floor", *OURS, *QSD, *nbd), qd, write, direct=True, extra=qd < 32 and (write or qd == 8)))
        all_.append(Case(f"direct-seq-{op}-qd8", f"O_DIRECT, 128 KiB sequential {op}, QD 8", ("floor", *OURS, *QSD), 8, write, 131072, True, direct=True, extra=True))
    for op, write in (("read", False), ("write", True)):
        for qd in (1, 8, 32, 128):
            all_.append(Case(f"tmpfs-{op}-qd{qd}", f"tmpfs, 4 KiB random {op}, QD {qd}", ("floor", *OURS, *QSD), qd, write, image="tmpfs", extra=qd != 32))
    for qd in (1, 8, 32, 128):
        all_.append(Case(f"null-qd{qd}", f"no bytes, 4 KiB reads, QD {qd}: the transport alone", ("floor", *OURS, "qsd-poll", "qsd-iothread", "qsd-interrupt"), qd, image="null"))
    return all_


@dataclass(frozen=True)
class Test:
    """`figure` of ours, over that of peer `to` if one is named, must be at least (or `most`: at most) `must`."""

    figure: str
    must: float
    aim: float = None
    to: str = None
    most: bool = False

    def met(self, value, limit=None):
        limit = self.must if limit is None else limit
        return value <= limit if self.most else value >= limit

    def text(self, limit):
        unit = {"cpu_us_per_io": "CPU of ", "iops": ""}.get(self.figure, "") + (self.to or self.figure)
        shown = f"{limit / 1e6:g} M" if self.figure == "iops" and not self.to else f"{limit:g} ×" if self.to else f"{limit:g}"
        return f"{'≤' if self.most else '≥'} {shown} {unit}"


@dataclass(frozen=True)
class Goal:
    title: str
    case: str
    ours: tuple  # whichever does best
    tests: tuple = field(default=())


def above(to, must, aim=None):
    return Test("iops", must, aim, to)


def cpu_below(to, must):
    return Test("cpu_us_per_io", must, None, to, most=True)


def below(figure, must):
    return Test(figure, must, most=True)


def goals():
    spin, all_ = ("domzero-poll", "domzero-adaptive"), []
    for qd in (32, 128):
        all_.append(Goal(f"hot file, 4 KiB random read, QD {qd}, polled or adaptive", f"hot-read-qd{qd}", spin, (above("floor", 0.92, 0.97), above("qsd-poll", 2))))
    all_.append(Goal("the same, QD 1, adaptive", "hot-read-qd1", ("domzero-adaptive",), (above("floor", 0.85, 0.90), above("qsd-poll", 2))))
    for qd in (32, 128):
        all_.append(Goal(f"the same with copy, QD {qd}", f"hot-read-qd{qd}", ("domzero-copy",), (above("floor", 0.82, 0.86),)))
    all_.append(Goal("two queues, two guest threads, against two loops", "two-queues-qd32", OURS[:2] + PAIRS, (above("floor", 0.75, 0.85),)))
    all_.append(Goal("interrupt driven, QD 32, both ends on one core", "one-core-qd32", ("domzero-interrupt",), (above("floor", 0.83, 0.9), cpu_below("floor", 1.2))))
    for mode, limit in (("interrupt", 0.065), ("adaptive", 0.002)):
        tests = (below("sent_per_io", limit), below("received_per_io", limit))
        all_.append(Goal(f"notifications per request, QD 32, {mode}", "hot-read-qd32", (f"domzero-{mode}",), tests))
    all_.append(Goal("hot file, 4 KiB random write, QD 32", "hot-write-qd32", OURS, (above("floor", 1.2, 1.3), above("qsd-poll", 2.5))))
    all_.append(Goal("128 KiB reads, QD 8", "seq-read-qd8", OURS, (above("floor", 0.97), above("qsd-poll", 1.1))))
    for op in ("read", "write"):
        for qd in (32, 128):
            tests = (above("floor", 0.95, 0.98), cpu_below("qsd-interrupt", 0.5))
            all_.append(Goal(f"O_DIRECT {op}, QD {qd}", f"direct-{op}-qd{qd}", OURS, tests))
    all_.append(Goal("null image, QD 32", "null-qd32", spin, (above("qsd-iothread", 3), above("qsd-poll", 3), Test("iops", 0, 17e6))))
    all_.append(Goal("null image, QD 1", "null-qd1", spin, (above("qsd-iothread", 6), above("qsd-poll", 6))))
    for name, title in (("one-core", "both ends on one core"), ("hog", "a busy process on each core")):
        for qd in (1, 32):
            all_.append(Goal(f"{title}, adaptive, QD {qd}", f"{name}-qd{qd}", ("domzero-adaptive",), (above("domzero-interrupt", 0.9),)))
    all_.append(Goal("256 idle disks", "idle-disks", ("domzero-adaptive",), (below("cpu_percent", 0.05), below("private_kib_per_disk", 64))))
    return all_
