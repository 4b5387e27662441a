# SPDX-License-Identifier: MIT
"""bench/dma_cases.py: what the strategies are compared by: cases, goals, and which primitives a strategy is made of.

A case is one load; all strategies take turns on it. The matrix: reads and writes of 4 KiB, 64 KiB and 1 MiB, one and 32 in
flight, of a file in the page cache, by O_DIRECT, and of no bytes at all, with grants that stay mapped ("-kept") and with grants that
are mapped for each request ("-each"). Beside it, of 4 KiB: the guest's buffers go round a pool of POOL_MIB ("cold"), and the
program looks at its data or not ("-touch").
"""
from dataclasses import dataclass

from block_cases import Case

STRATEGIES = ("copy", "validate", "pin", "iommu", "pin-each", "none")
SIZES = ((4096, "4k"), (65536, "64k"), (1 << 20, "1m"))
STORAGES = {"hot": "page cache", "direct": "O_DIRECT", "null": "no bytes"}
POOL_HOT, POOL_COLD = "4M", "64M"  # the library's default, and the most that it gives
POOL_MIB = 64


@dataclass(frozen=True)
class DmaCase(Case):
    storage: str = "hot"
    persistent: bool = True
    pool: str = "hot"
    touch: bool = False

    def keys(self):
        """What a row of dma.json is found by, but for its strategy."""
        return {"op": "write" if self.write else "read", "block_bytes": self.block_bytes, "qd": self.qd, "storage": self.storage, "pool": self.pool,
                "persistent": self.persistent, "touch": self.touch}


def case(storage, write, size, qd, persistent=True, pool="hot", touch=False):
    op, short = "write" if write else "read", dict(SIZES)[size]
    name = f"{storage}-{op}-{short}-qd{qd}" + "-cold" * (pool == "cold") + "-touch" * touch + ("-kept" if persistent else "-each")
    title = f"{STORAGES[storage]}, {short} {op}, QD {qd}" + f", pool of {POOL_MIB} MiB" * (pool == "cold")
    title += ", data looked at" * touch + (", grants stay mapped" if persistent else ", grants of each request")
    return DmaCase(name, title, STRATEGIES, qd, write, size, direct=storage == "direct", image="null" if storage == "null" else "hot", storage=storage,
                   persistent=persistent, pool=pool, touch=touch)


def cases():
    all_ = [case(storage, write, size, qd, persistent)
            for storage in STORAGES for write in (False, True) for size, _ in SIZES for qd in (1, 32) for persistent in (True, False)]
    for storage in ("hot", "null"):
        for write in (False, True):
            all_.append(case(storage, write, 4096, 32, pool="cold"))
            all_.append(case(storage, write, 4096, 32, persistent=False, pool="cold"))
            all_.append(case(storage, write, 4096, 32, touch=True))
            all_.append(case(storage, write, 4096, 32, pool="cold", touch=True))
    return all_


def quick_cases():
    """A look: what goals and explanations need, and one of each kind."""
    kept = [case(s, w, size, qd) for s in STORAGES for w in (False, True) for size, qd in ((4096, 32), (65536, 32)) if s == "hot" or not w]
    kept += [case("hot", False, 4096, 1), case("hot", False, 1 << 20, 32), case("hot", False, 4096, 32, persistent=False), case("null", False, 4096, 32, persistent=False)]
    return kept + [case("hot", w, 4096, 32, pool="cold") for w in (False, True)]


@dataclass(frozen=True)
class Goal:
    """The share of `none` that a strategy is to keep in a case."""

    strategy: str
    must: float
    case: str

    def name(self):
        return f"{self.strategy} ≥ {self.must:g} of none, {self.case}"


def goals():
    return [Goal(s, must, c) for c in ("hot-read-4k-qd32-kept", "hot-write-4k-qd32-kept") for s, must in (("pin", 0.97), ("iommu", 0.95), ("copy", 0.85))]


def parts(strategy, case_):
    """The primitives that a request of one page costs more than with `none`; None where that is not known."""
    kept = case_.persistent and case_.pool == "hot"  # of a large pool most pages are not kept
    check = ["validate-kept"] if kept else ["pin", "unpin"]
    copy = "copy-4k-hot" if case_.pool == "hot" else "copy-4k-from-cold" if case_.write else "copy-4k-to-cold"
    return {
        "copy": (["validate-kept"] if kept else ["validate"]) + [copy],
        "validate": ["validate-kept"] if kept else ["validate"],
        "pin": check,
        "pin-each": check + ["pin-kernel", "unpin-kernel"],
        "iommu": ["iotlb-hit" if case_.pool == "hot" else "iotlb-miss"],
    }.get(strategy)


EXPLAINED_CASES = ("hot-read-4k-qd32-kept", "hot-read-4k-qd32-each", "hot-write-4k-qd32-kept", "hot-read-4k-qd32-cold-kept", "null-read-4k-qd32-kept",
                   "null-read-4k-qd32-each")
