# SPDX-License-Identifier: MIT
"""bench/poll_cases.py: which loads are put on which machine, and what is asked of `adaptive` there.

A case is a pattern of arrivals, a number of guests with a disk each, and one processor for both ends or two, of which the
server has the second. All modes take turns on it. A goal holds `adaptive` against the mode that is best at such a load.
"""
from dataclasses import dataclass

MODES = ("interrupt", "poll", "adaptive")
RATES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 500_000)
HIGH = 100_000  # from this rate on, on two processors, polling is what pays
LOW = 1_000
BURST = 32
REACHED = 0.97  # of what was asked for


@dataclass(frozen=True)
class Load:
    pattern: str  # closed-qd1, closed-qd32, poisson, burst, idle
    rate: int = None  # requests a second, of all guests together
    devices: int = 1
    cores: int = 2

    def name(self):
        rate = f" {self.rate}/s" if self.rate else ""
        return f"{self.pattern}{rate}, {self.devices} disk{'s' * (self.devices > 1)}, {self.cores} core{'s' * (self.cores > 1)}"

    def slug(self):
        return "-".join([self.pattern, *[str(self.rate)] * bool(self.rate), f"{self.devices}d", f"{self.cores}c"])

    def args(self):
        if self.pattern == "idle":
            return ["-i"]
        if self.rate:
            return ["-R", str(self.rate)] + ["-B", str(BURST)] * (self.pattern == "burst") + ["-n"] * (self.cores == 1)
        return ["-q", self.pattern.removeprefix("closed-qd")]


def loads(cores_most):
    what = [("idle", None), ("closed-qd1", None), ("closed-qd32", None), *(("poisson", r) for r in RATES),
            ("burst", BURST * 1000), ("burst", BURST * 100)]
    return [Load(p, r, d, c) for c in (2, 1) if c <= cores_most for d in (1, 16) for p, r in what]


@dataclass(frozen=True)
class Goal:
    """`figure` of `ours`, over that of `to` in the same round (`minus`: less it), must be at least, or at most, `must`. `beside`: both
    had the load at the same time, each its own guests, on the same processors: what little they do costs more or less from one
    moment to the next, by far more than they differ."""

    name: str
    load: Load
    figure: str
    to: str
    must: float
    most: bool = True
    minus: bool = False
    beside: bool = False
    ours: str = "adaptive"

    def met(self, value):
        return value <= self.must if self.most else value >= self.must

    def text(self):
        return f"{'≤' if self.most else '≥'} {self.must:g} " + (f"more than {self.to}" if self.minus else f"× {self.to}")


def goals(cores_most):
    """Where the load is high, as poll; where it is low, as interrupt; on one processor, as interrupt."""
    all_ = []
    for load in loads(cores_most):
        name, loaded = load.name(), load.pattern == "closed-qd32" or load.pattern == "poisson" and load.rate >= HIGH
        if load.cores == 2 and load.devices == 1 and loaded:
            all_.append(Goal(f"throughput: {name}", load, "iops", "poll", 0.95, most=False))
            all_.append(Goal(f"p50: {name}", load, "p50_us", "poll", 1.05))
        if load.pattern == "poisson" and load.rate <= LOW:
            all_.append(Goal(f"server's CPU: {name}", load, "server", "interrupt", 1.05, beside=True))
            all_.append(Goal(f"CPU of both ends: {name}", load, "total", "interrupt", 1.05, beside=True))
        if load.pattern == "idle":
            all_.append(Goal(f"server's processors: {name}", load, "server", "interrupt", 0.001, minus=True))
        if load.cores == 1 and load.pattern.startswith("closed"):
            all_.append(Goal(f"throughput: {name}", load, "iops", "interrupt", 0.9, most=False))
    return all_
