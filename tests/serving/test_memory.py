import ctypes
import gc
import subprocess
import sys

import pytest

from serving.memory import GROWTH_BYTES, Watch


def test_what_is_more_than_usual_is_given_back_once():
    used, released = [100], []
    watch = Watch(lambda: used[0], lambda: released.append(used[0]))
    used[0] += GROWTH_BYTES
    assert watch.look() == used[0]
    assert released == []
    used[0] += 1
    watch.look()
    assert len(released) == 1
    watch.look()
    assert len(released) == 1
    used[0] = 50
    assert watch.look() == 50
    used[0] += GROWTH_BYTES + 1
    watch.look()
    assert len(released) == 2


CYCLES = """
from serving.memory import Watch, freeze, keep_free, resident_bytes
keep_free()
freeze()
watch, before = Watch(), resident_bytes()
for _ in range(50):
    cycle = [bytes(10_000_000)]
    cycle.append(cycle)
    watch.look()
print(resident_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bodies_in_cycles_are_given_back_though_they_are_few():
    assert gc.isenabled()
    done = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, check=True, text=True, timeout=60)
    assert int(done.stdout) < 2 * GROWTH_BYTES


FREED = """
import ctypes
import resource
from serving.memory import FREE_BYTES, LARGE_BYTES, MOST_FREE_BYTES, MOST_LARGE_BYTES, keep_free, resident_bytes

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work(size, blocks):
    before = faults()
    for _ in range(20):
        held = [b"x" * size for _ in range(blocks)]
        del held
    return faults() - before

PR_SET_THP_DISABLE = 41  # a huge page would be one fault for 512 pages
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
keep_free()
before = resident_bytes()
print(work(LARGE_BYTES // 2, FREE_BYTES // LARGE_BYTES), work(FREE_BYTES, 1), work(LARGE_BYTES // 2, 40))
print(resident_bytes() - before, FREE_BYTES)
keep_free(MOST_LARGE_BYTES, MOST_FREE_BYTES)
print(work(MOST_LARGE_BYTES - (1 << 20), 4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another malloc than glibc's")
def test_small_blocks_are_kept_for_what_comes_next_and_large_ones_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, check=True, text=True, timeout=60)
    small, large, _, kept, bound, all_kept = map(int, done.stdout.split())
    assert small < 4000, "pages that the system cleared once: 8 MB"
    assert large > 10 * small, "pages that it cleared each time: 16 MB"
    assert kept < 1.5 * bound
    assert all_kept < 64_000, "pages that it cleared once: 124 MB"
