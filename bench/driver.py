# SPDX-License-Identifier: MIT
"""bench/driver.py: what drivers of measurements have in common: which cases are wanted, and where results go."""
import fnmatch, os, time


def picked(names, variable, otherwise=None):
    """Those that a pattern of the variable names, whole or up to a dash; `otherwise`, or all, where it is not set."""
    patterns = [p for p in os.environ.get(variable, "").split(",") if p]
    good = lambda n: any(fnmatch.fnmatch(n, p) or fnmatch.fnmatch(n, p + "-*") for p in patterns)
    return [n for n in names if good(n)] if patterns else list(otherwise or names)


def results_directory(kind, whole, info):
    """RESULTS; else one of its own for a run of everything, and `latest` for others."""
    name = f"{kind}-" + time.strftime("%Y-%m-%d-%H%M-") + info["commit"] if whole else "latest"
    directory = os.environ.get("RESULTS") or f"bench/results/{name}"
    os.makedirs(directory, exist_ok=True)
    return directory
