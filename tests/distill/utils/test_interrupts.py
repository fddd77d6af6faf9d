"""A signal ends the process at once, except where somebody asked for it to wait."""

import signal
import threading

import pytest

from distill.utils.interrupts import SIGNALS, Interrupted, PostponedSignals, ignore_signals, raise_on_signals


@pytest.fixture(autouse=True)
def signal_handlers():
    """Give the test runner its own handlers back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    raise_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises(number):
    with pytest.raises(Interrupted) as interrupt:
        signal.raise_signal(number)
    assert interrupt.value.number == number


def test_no_except_clause_for_errors_swallows_it():
    assert not issubclass(Interrupted, Exception)


def test_a_postponed_signal_is_noted_and_raised_on_leaving():
    noted = []

    def work():
        with PostponedSignals() as signals:
            noted.append(signals.received)
            signal.raise_signal(signal.SIGTERM)
            noted.append(signals.received)

    with pytest.raises(Interrupted) as interrupt:
        work()
    assert noted == [0, signal.SIGTERM]
    assert interrupt.value.number == signal.SIGTERM


def test_what_is_raised_inside_is_not_replaced_on_leaving():
    def work():
        with PostponedSignals():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_postponing_starts_and_ends_afresh():
    with pytest.raises(Interrupted), PostponedSignals():
        signal.raise_signal(signal.SIGTERM)
    with PostponedSignals() as signals:
        assert signals.received == 0
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)


def test_an_ending_process_is_left_in_peace():
    ignore_signals()
    for number in SIGNALS:
        signal.raise_signal(number)


def test_another_thread_than_the_main_one_can_do_the_same_work():
    done = []

    def work():
        with PostponedSignals():
            done.append(threading.current_thread())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [thread]


def test_the_handlers_from_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with PostponedSignals(), PostponedSignals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_handler_that_python_did_not_install_is_replaced_by_the_default(monkeypatch):
    """Python calls such a handler None and cannot put it back."""
    install = signal.signal
    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", lambda number, handler: install(number, handler) and None)
        with PostponedSignals():
            pass
    assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)
