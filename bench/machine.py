# SPDX-License-Identifier: MIT
"""bench/machine.py: the machine under a measurement: what it is, who else runs on it, and how to be disturbed less.

Processor time is read from the clocks of whole processes (CLOCK_PROCESS_CPUTIME_ID of another process), to the
nanosecond, io_uring's workers and ended threads included. Where we may, measured processes run at NICENESS (-15) and so do
their autogroups: niceness alone counts only within one session.
"""
import os, platform, re, resource, subprocess, time

NICE = int(os.environ.get("NICENESS", "-15"))
HZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """What all threads of a process have used; 0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def children_seconds():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


def busy_seconds():
    """What everybody has used on all processors since boot, the share that the host took included."""
    with open("/proc/stat") as f:
        ticks = [int(t) for t in f.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / HZ


def prefer(pid=0):
    """Raises the priority of a process's session. False where that is not allowed, or not wanted (NICENESS=0)."""
    if NICE == 0:
        return False
    try:
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        with open(f"/proc/{pid or 'self'}/autogroup", "w") as f:
            f.write(str(NICE))
        return True
    except FileNotFoundError:
        return True  # a kernel without autogroups
    except OSError:
        return False


def pin(pid, cpus):
    """All threads of a process, but for those that the kernel keeps to itself. One that is gone has none."""
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                os.sched_setaffinity(int(tid), cpus)
            except OSError:
                pass
    except FileNotFoundError:
        pass


def raise_descriptor_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


CHUNK = bytearray(4 << 20)


def warm(path):
    """Has a file in the page cache, from which a machine with DAMON evicts what nobody touched for a while. Without readahead,
    which would make large folios: a 4 KiB write to one of these costs ten times one to a page of its own (Linux 6.18, ext4),
    and whether they come about is chance."""
    with open(path, "rb", buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while f.readinto(CHUNK):
            pass


def soil(path):
    """Writes a whole file, once it is in the cache: all of its pages are dirty, whoever wrote before."""
    warm(path)
    with open(path, "r+b", buffering=0) as f:
        for _ in range(os.fstat(f.fileno()).st_size // len(CHUNK)):
            f.write(CHUNK)


def write_out(path, drop):
    """Leaves nothing dirty of a file; with `drop` nothing of it in the page cache: O_DIRECT is to meet the disk alone."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        if drop:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def first_line(*command):
    try:
        said = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "not installed"
    return (said.stdout or said.stderr).strip().split("\n")[0]


def field(path, name):
    with open(path) as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith(name)), "?")


def one_word(path):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return "?"


def file_system(path):
    """Type and device of the file system that holds `path`."""
    best = ("", "?", "?")
    real = os.path.realpath(path)
    with open("/proc/mounts") as f:
        for line in f:
            device, where, kind = line.split()[:3]
            if (real + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best[0]):
                best = (where, kind, device)
    return f"{best[1]} on {best[2]}"


def kernel_threads(pattern):
    names = (one_word(f"/proc/{pid}/comm") for pid in os.listdir("/proc") if pid.isdigit())
    return sum(1 for n in names if re.match(pattern, n))


def commit():
    p = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if p.returncode:
        return "unknown"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], capture_output=True).returncode
    return p.stdout.strip() + ("-changed" if changed else "")


def describe(image, tmpfs):
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": commit(),
        "cpu": field("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "hypervisor": "yes" if " hypervisor" in field("/proc/cpuinfo", "flags") else "no",
        "clocksource": one_word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "DAMON threads": kernel_threads("kdamond"),
        "image": file_system(image),
        "tmpfs": file_system(tmpfs),
        "compiler": "gcc " + first_line("gcc", "-dumpfullversion"),
        "liburing": first_line("dpkg-query", "-W", "-f", "${Version}", "liburing-dev"),
        "qemu": first_line("qemu-storage-daemon", "--version"),
        "nbdkit": first_line("nbdkit", "--version"),
        "fio": first_line("fio", "--version"),
        "load before": one_word("/proc/loadavg"),
    }
