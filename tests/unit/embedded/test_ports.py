from __future__ import annotations

import socket
from pathlib import Path

from core.embedded.ports import LOOPBACK, find_free, is_free, remembered


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_free_ports_are_different_and_below_those_of_outgoing_connections() -> None:
    ports = find_free(50)
    assert len(set(ports)) == 50
    assert max(ports) < 32768


def test_the_same_ports_come_back_while_they_are_free(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["http", "grpc"])
    assert remembered(tmp_path / "ports.json", ["http", "grpc"]) == first


def test_ports_of_which_one_was_taken_are_chosen_anew(tmp_path: Path) -> None:
    first = remembered(tmp_path / "ports.json", ["http", "grpc"])
    with socket.create_server((LOOPBACK, first["grpc"])):
        second = remembered(tmp_path / "ports.json", ["http", "grpc"])
        assert second.keys() == first.keys()
        assert all(map(is_free, second.values()))


def test_a_damaged_memory_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    file.write_text("{")
    chosen = remembered(file, ["http"])
    assert remembered(file, ["http"]) == chosen
