"""A port that is reserved for a listener to come."""

from __future__ import annotations

import socket

import pytest

from executor_svc.engine.vllm.port_reservation import PortReservation
from executor_svc.runtime.engine_port import EngineError

HOST = "127.0.0.1"


def listening(port: int) -> socket.socket:
    """As ZeroMQ does it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen()
    return listener


def test_whoever_it_is_for_can_listen_on_it() -> None:
    reservation = PortReservation(HOST, 0)
    with listening(reservation.port), socket.create_connection((HOST, reservation.port)):
        pass
    reservation.close()


def test_nobody_who_asks_for_any_port_is_given_it() -> None:
    reservation = PortReservation(HOST, 0)
    others = [PortReservation(HOST, 0) for _ in range(500)]
    assert reservation.port not in {other.port for other in others}
    for other in (reservation, *others):
        other.close()


def test_a_port_can_be_asked_for() -> None:
    first = PortReservation(HOST, 0)
    first.close()
    again = PortReservation(HOST, first.port)
    assert again.port == first.port
    again.close()


def test_a_port_somebody_listens_on_is_an_error_that_names_it() -> None:
    with listening(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=str(port)):
            PortReservation(HOST, port)


def test_an_address_that_is_not_this_machines_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"203\.0\.113\.1"):
        PortReservation("203.0.113.1", 0)
    with pytest.raises(EngineError, match="no-such-host"):
        PortReservation("no-such-host.invalid", 0)
