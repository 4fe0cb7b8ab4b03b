import pytest

from serving import rate_limit
from serving.errors import TooManyRequests
from serving.rate_limit import RateLimit, network_of
from tests.serving.fakes import FakeClock


def passed(limit: RateLimit, address: str, count: int) -> int:
    done = 0
    for _ in range(count):
        try:
            limit.check(address)
        except TooManyRequests:
            continue
        done += 1
    return done


def test_after_a_burst_the_rate_is_kept_and_each_address_has_its_own():
    clock = FakeClock()
    limit = RateLimit(10.0, clock)
    assert passed(limit, "192.0.2.1", 100) == 20
    assert passed(limit, "192.0.2.2", 5) == 5
    clock.now += 0.5
    assert passed(limit, "192.0.2.1", 100) == 5
    clock.now += 100
    assert passed(limit, "192.0.2.1", 100) == 20


def test_a_refusal_says_when_to_come_again_and_then_it_is_right():
    clock = FakeClock()
    limit = RateLimit(0.25, clock)
    limit.check("192.0.2.1")
    with pytest.raises(TooManyRequests) as caught:
        limit.check("192.0.2.1")
    assert caught.value.retry_after_s == pytest.approx(4.0)
    clock.now += caught.value.retry_after_s
    limit.check("192.0.2.1")


def test_who_has_not_asked_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 100)
    limit = RateLimit(1.0, FakeClock())
    for number in range(10_000):
        limit.check(f"192.0.{number // 256}.{number % 256}")
    assert len(limit._quiet_at) == 100
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 2)
    limit = RateLimit(1.0, FakeClock())  # two at once
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        limit.check(address)
    assert [passed(limit, f"192.0.2.{last}", 2) for last in (1, 3, 2)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_caller_of_version_6_is_its_network(address: str, network: str):
    assert network_of(address) == network


def test_what_a_proxy_tells_may_be_no_address():
    # https://www.rfc-editor.org/rfc/rfc7239#section-6
    assert network_of("_hidden:x") == "_hidden:x"
