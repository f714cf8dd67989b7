from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from core.embedded.ports import LOOPBACK, find_free, is_free, is_held, remembered


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_a_port_is_held_by_the_process_that_listens_on_it() -> None:
    with socket.create_server((LOOPBACK, 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        assert is_held(port, by=os.getpid())
        assert not is_held(client.getsockname()[1], by=os.getpid())  # a connection is no server
        assert not is_held(port, by=os.getppid())
    assert not is_held(port, by=os.getpid())


def test_a_process_that_is_gone_holds_no_port() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert not is_held(22, by=gone.pid)


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
