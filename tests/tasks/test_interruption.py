"""Signals wait until the block is done."""

import signal

import pytest

from unfreeze.tasks.machine.interruption import deferred_signals, heed_hangups


def test_a_signal_takes_effect_at_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_signals() as stop_asked:
        assert not stop_asked()
        signal.raise_signal(signal.SIGINT)
        assert stop_asked()
        done.append("saved")
    assert done == ["saved"]


def test_a_second_signal_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal was held back")


def test_without_a_signal_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_signals():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_terminal_stops_once_however_often_it_is_said() -> None:
    done = []
    before = signal.getsignal(signal.SIGHUP)
    try:
        heed_hangups()
        with pytest.raises(KeyboardInterrupt):
            try:
                with deferred_signals():
                    signal.raise_signal(signal.SIGHUP)
                    signal.raise_signal(signal.SIGHUP)
                    done.append("checkpoint saved")
            finally:
                signal.raise_signal(signal.SIGHUP)
                done.append("run closed")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done == ["checkpoint saved", "run closed"]
