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
from serving.memory import Watch, freeze, resident_bytes
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
