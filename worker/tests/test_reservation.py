"""Reservations where the driver can't be asked: an engine must not end for want of a proof."""

from __future__ import annotations

import logging

import pytest

from lazygraph_vllm.rank import memory
from lazygraph_vllm.rank.memory import Reservation


class Driver:
    """Answers every allocation with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.held: list[int] = []

    def allocate(self, size: int) -> tuple[int, int]:
        if self.status == 0:
            self.held.append(size)
        return self.status, len(self.held)

    def free(self, address: int) -> int:
        self.held.pop()
        return 0


def no_library(_: str) -> None:
    raise OSError("libcuda.so.1: cannot open shared object file")


def other_library(_: str) -> object:
    return object()


@pytest.mark.parametrize("load", [no_library, other_library])
def test_without_the_drivers_library_the_figures_decide(
    load: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "_driver", None)
    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    reservation = Reservation()
    with caplog.at_level(logging.WARNING, "vllm.lazygraph"):
        assert reservation.take(1 << 20)
        assert reservation.take(1 << 20)
        reservation.give_back()
    assert [r.message.count("can't try a reservation") for r in caplog.records] == [1]


def test_a_driver_that_answers_something_else_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(201)
    monkeypatch.setattr(memory, "_driver", driver)
    reservation = Reservation()
    with caplog.at_level(logging.WARNING, "vllm.lazygraph"):
        assert reservation.take(8) and reservation.take(8)
    assert [r.message for r in caplog.records] == [
        "lazygraph: can't try a reservation: CUDA driver error 201"
    ]
    driver.status = memory.CUDA_ERROR_OUT_OF_MEMORY
    assert not reservation.take(8)
    driver.status = memory.CUDA_SUCCESS
    assert reservation.take(8) and driver.held == [8]
    reservation.give_back()
    assert driver.held == []
