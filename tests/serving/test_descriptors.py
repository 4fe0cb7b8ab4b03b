import resource

import pytest

from serving.descriptors import RESERVE, needed, raise_limit
from serving.settings import Settings


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for the soft and the hard limit of this process."""
    found = [1024, 20_000]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(found))
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: found.__setitem__(slice(None), given))
    return found


def test_every_port_that_is_on_and_every_handshake_needs_its_connections():
    assert needed(Settings()) == 3 * 1000 + RESERVE
    assert needed(Settings(max_connections=10, v2_port=0)) == 2 * 10 + RESERVE
    assert needed(Settings(max_connections=10, admin_port=9000, tls_cert="c", tls_key="k")) == 5 * 10 + RESERVE


def test_the_limit_is_raised_to_what_is_needed(limits: list[int], caplog: pytest.LogCaptureFixture):
    raise_limit(Settings())
    assert limits == [needed(Settings()), 20_000]
    assert caplog.text == ""


@pytest.mark.parametrize("enough", [4000, resource.RLIM_INFINITY])
def test_a_limit_that_is_enough_stays(limits: list[int], caplog: pytest.LogCaptureFixture, enough: int):
    limits[:] = before = [enough, enough]
    raise_limit(Settings())
    assert limits == before
    assert caplog.text == ""


def test_without_a_hard_limit_it_is_raised_to_what_is_needed(limits: list[int]):
    limits[1] = resource.RLIM_INFINITY
    raise_limit(Settings())
    assert limits == [needed(Settings()), resource.RLIM_INFINITY]


@pytest.mark.parametrize("soft", [1024, 2048])
def test_what_the_system_does_not_allow_is_told_in_one_line(
    limits: list[int], caplog: pytest.LogCaptureFixture, soft: int
):
    limits[:] = soft, 2048
    raise_limit(Settings())
    assert limits == [2048, 2048]
    (line,) = caplog.messages
    assert "2048" in line
    assert "MNIST_MAX_CONNECTIONS=1000" in line
    assert str(needed(Settings())) in line
