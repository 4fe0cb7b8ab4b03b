"""What `benchmarks.attack` makes of an attack that is none."""

import sys

import pytest

from benchmarks import attack

PORTS = [1, 2, 3]
READY = "print('ready', flush=True)"


@pytest.fixture
def attacked(monkeypatch):
    """Return a function that measures beside a process that runs so much Python instead of an attack."""

    async def quiet(port: int, seconds: float) -> list[float]:
        return [0.001]

    monkeypatch.setattr(attack, "ordinary", quiet)
    usual = attack.subprocess.Popen

    def run(code: str) -> float:
        monkeypatch.setattr(attack.subprocess, "Popen", lambda _, **rest: usual([sys.executable, "-c", code], **rest))
        return attack.attacked_ms("slow heads", PORTS, 1.0)

    return run


def test_what_was_measured_beside_an_attack_is_its_p99(attacked):
    assert attacked(READY) == pytest.approx(1.0)


@pytest.mark.parametrize(("code", "said"), [("", "did not begin"), (f"{READY}; raise SystemExit(1)", "failed")])
def test_an_attack_that_does_not_begin_or_last_is_no_row_of_the_table(attacked, code: str, said: str):
    with pytest.raises(RuntimeError, match=f"slow heads: the attack {said}"):
        attacked(code)


def test_an_attack_of_which_a_connection_fails_ends():
    code = (
        "import sys; from benchmarks import attacks\n"
        "attacks.KINDS['broken'] = (2, lambda: lambda ports: [][0])\n"
        "sys.argv[1:] = ['broken', '60', '1', '2']\n"
        "attacks.main()"
    )
    done = attack.subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "IndexError" in done.stderr
