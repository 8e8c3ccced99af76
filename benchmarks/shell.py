"""Time a command and its peak memory: python -m benchmarks.shell COMMAND...

A process of its own, because a child's peak counts that of the process it was forked from.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def main() -> None:
    """Print seconds from process start to the first line, peak memory in MB, and the line."""
    begin = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - begin
    _, status, usage = os.wait4(process.pid, 0)  # POSIX
    process.returncode = os.waitstatus_to_exitcode(status)
    print(f"{seconds:.4f}\t{usage.ru_maxrss / 1024:.0f}\t{line.strip()}")


if __name__ == "__main__":
    main()
