import socket

from tests import ports


def test_no_port_is_given_twice_or_while_somebody_listens(monkeypatch):
    taken, free, other = ports.free_ports(3)
    monkeypatch.setattr(ports, "_PORTS", iter([taken, free, other]))
    with socket.create_server(("127.0.0.1", taken)):
        assert ports.free_ports(1) == [free]
        assert ports.free_ports(1) == [other]
    assert all(ports.LOWEST <= port <= ports.HIGHEST for port in (taken, free, other))


def test_processes_side_by_side_share_the_ports(monkeypatch):
    shares = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
        mine = ports._mine()
        shares.append({next(mine) for _ in range(20_000)})
    assert shares[0].isdisjoint(shares[1])
    assert len(shares[0] | shares[1]) == ports.HIGHEST - ports.LOWEST + 1
