# SPDX-License-Identifier: MIT
"""bench/dma_peer.py: a disk with one strategy, measured once, with what its backend counted meanwhile.

One daemon serves all strategies. Each measurement has a disk of its own, so its counters begin at zero; they are read when
the guest has closed it, and then they are exact. System calls are counted, not traced: those by which the reactor submits
and waits, one for each notification that an end sends or, in the guest, receives, and two for each registration of memory.
(strace of both ends, interrupt driven, counts the same; what connecting and closing cost is not in it.)
"""
import json, time

from block_peers import CannotRun, Domzero
from dma_cases import POOL_COLD, POOL_HOT

CLOSED_SECONDS = 5


class Strategies(Domzero):
    pinned_modes = ("poll", "adaptive")

    def use(self, strategy):
        self.dma = strategy

    def guest_options(self, case):
        cold = case.pool == "cold"
        return ["-m", POOL_COLD if cold else POOL_HOT] + ["-W"] * cold + ["-T"] * case.touch + ["-G"] * (not case.persistent)

    def counters(self):
        """The disk's, once its guest has closed it."""
        deadline = time.monotonic() + CLOSED_SECONDS
        while True:
            disks = [d for d in json.loads(self.call("block-stats", "--json")) if d["domain"] == "bench"]
            if disks and not disks[0]["stats"]["queues"]:
                return disks[0]["stats"]
            if time.monotonic() > deadline:
                raise CannotRun("the disk is not closed")
            time.sleep(0.002)

    def complete(self, row):
        s = self.counters()
        if s["requests"] < row["done"]:
            raise CannotRun("the block role ended meanwhile: see its log")
        per = lambda n: n / max(s["requests"], 1)
        hits, misses = s.get("iotlb_hits", 0), s.get("iotlb_misses", 0)
        server = s["reactor_calls"] + s["notifications"] + 2 * s["registrations"]
        row.update(
            server_cpu_us_per_io=row["cpu_us_per_io"] - row["client_cpu_us_per_io"], bytes_copied_per_io=per(s["dma_copied_bytes"]),
            maps_per_io=self.maps(s) / max(s["requests"], 1), pins_per_io=per(s["registrations"]),
            server_syscalls_per_io=per(server), client_syscalls_per_io=row["sent_per_io"] + row["received_per_io"],
            syscalls_per_io=per(server) + row["sent_per_io"] + row["received_per_io"],
            iotlb_hit_rate=hits / (hits + misses) if hits + misses else None, plain_vectors=bool(s["dma_over_share"] or self.was_plain(s)))
        return row

    def maps(self, s):
        """Pages of requests that were mapped: through their grants, those that stay mapped left out; to bus addresses."""
        if self.dma == "none":
            return 0
        return s.get("iommu_maps", 0) if self.dma == "iommu" else max(0, s["dma_maps"] - s["persistent_hits"])

    @staticmethod
    def was_plain(s):
        """Nothing was registered, though there was data to move. (The gauge dma_plain went with the queue.)"""
        return s["registrations"] == 0 and s["requests"] > 0
