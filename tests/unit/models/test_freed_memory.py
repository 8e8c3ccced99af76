from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

_FAULTS = """
import resource, sys, torch
if "keep" in sys.argv:
    from capsmith.models.freed_memory import keep_freed_memory
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(24):
    if step == 16:
        before = faults()
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_memory_that_was_freed_is_not_cleared_again_by_the_system():
    def faults(*arguments: str) -> int:
        made = subprocess.run(
            [sys.executable, "-c", _FAULTS, *arguments], capture_output=True, text=True, check=True
        )
        return int(made.stdout)

    pages = 2**26 // 4096
    assert faults() > 4 * pages
    assert faults("keep") < pages
