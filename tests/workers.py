# SPDX-License-Identifier: Apache-2.0
"""Runs tests in several processes at once: ``--workers 2``.

A worker takes one file of tests after the other from a queue that all workers share. Tests marked
``alone`` come afterwards, one by one: they look at or change what the whole machine has only once.

Workers are forked when the tests have been collected. So they have one thread, unlike those of
pytest-xdist: tests fork, enter namespaces that take no process with threads, and are sent signals.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Any

import pytest

_fork = multiprocessing.get_context("fork")


class Hooks:
    """What a conftest.py can implement."""

    def pytest_worker_begins(self) -> None:
        """Prepare this process, a worker, before its first test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=1, help="run tests in as many processes")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_configure(config: pytest.Config) -> None:
    alone = "alone: needs the machine for itself, so it runs when the workers have ended"
    config.addinivalue_line("markers", alone)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run what may have company, then the rest. With one worker that is left to pytest."""
    config = session.config
    number: int = config.getoption("--workers")
    if number < 2 or session.testsfailed or config.getoption("collectonly"):
        return None
    alone = [item for item in session.items if item.get_closest_marker("alone")]
    others = [item for item in session.items if not item.get_closest_marker("alone")]
    files = [list(items) for _, items in itertools.groupby(others, lambda item: item.path)]
    # They share a folder for temporary files. It is made, and removed some runs later, by this
    # process.
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        # Each result would begin a line: the one before it is of another file mostly.
        terminal.showfspath = False
    with _Workers(session, files, number) as workers:
        workers.tell()
    _end_if_asked(session)
    if terminal is not None:
        terminal.showfspath = None
    for _ in _run(alone):
        _end_if_asked(session)
    return True


def _run(items: Iterable[pytest.Item]) -> Iterator[None]:
    """Run tests, yielding after each."""
    for item, following in itertools.pairwise(itertools.chain(items, [None])):
        assert item is not None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        yield


def _end_if_asked(session: pytest.Session) -> None:
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


class _Workers:
    """The processes, and what they say: the test that begins, then all about it, None at the end.

    To be used in a ``with`` block: at its end, all of them have ended.
    """

    def __init__(
        self, session: pytest.Session, files: Sequence[Sequence[pytest.Item]], number: int
    ) -> None:
        self._session = session
        self._stop = _fork.Event()
        self._workers: dict[Connection, ForkProcess] = {}
        self._running: dict[Connection, str] = {}
        queue: SimpleQueue[int | None] = _fork.SimpleQueue()
        for place in (*range(len(files)), *[None] * number):
            queue.put(place)
        for _ in range(number):
            receiving, sending = _fork.Pipe(duplex=False)
            arguments = (session, _taken(files, queue), sending, self._stop)
            worker = _fork.Process(target=_work, args=arguments)
            worker.start()
            sending.close()
            self._workers[receiving] = worker
        queue.close()

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for said, worker in self._workers.items():
            # Who still has something to say does not wait for somebody to hear it.
            said.close()
            worker.join()

    def tell(self) -> None:
        """Tell pytest what happens, until all tests have run, or enough of them have failed.

        The death of a worker is a failure that ends the run.
        """
        working = dict(self._workers)
        while working:
            # A child of a worker may hold its end of the pipe, so its death is asked for, too.
            heard = wait(working, timeout=1)
            for said, worker in list(working.items()):
                try:
                    if said in heard and not self._tell_one(said):
                        del working[said]
                    elif not worker.is_alive() and not said.poll():
                        raise EOFError
                except EOFError:
                    last = self._running.get(said, "before its first test")
                    self._session.shouldfail = f"a worker has died: {last}"
                    del working[said]
            if self._session.shouldfail or self._session.shouldstop:
                self._stop.set()

    def _tell_one(self, said: Connection) -> bool:
        match said.recv():
            case None:
                return False
            case str(nodeid):
                self._running[said] = nodeid
            case test, reports:
                config = self._session.config
                config.hook.pytest_runtest_logstart(**test)
                for data in reports:
                    report = config.hook.pytest_report_from_serializable(config=config, data=data)
                    config.hook.pytest_runtest_logreport(report=report)
                config.hook.pytest_runtest_logfinish(**test)
        return True


class _Reporting:
    """In a worker, sends what the process that started it shall tell."""

    def __init__(self, config: pytest.Config, sending: Connection) -> None:
        self._config = config
        self._sending = sending
        self._reports: list[dict[str, Any]] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._sending.send(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports.append(data)

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._sending.send(({"nodeid": nodeid, "location": location}, self._reports))
        self._reports = []


def _taken(
    files: Sequence[Sequence[pytest.Item]], queue: SimpleQueue[int | None]
) -> Iterator[pytest.Item]:
    """Yield the tests of the files that nobody else has taken."""
    while (place := queue.get()) is not None:
        yield from files[place]


def _work(
    session: pytest.Session, items: Iterator[pytest.Item], sending: Connection, stop: Event
) -> None:
    config = session.config
    plugins = config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(_Reporting(config, sending))
    # What is captured goes to files that the workers would share.
    capturing = plugins.get_plugin("capturemanager")
    if capturing is not None:
        capturing.stop_global_capturing()
        capturing.start_global_capturing()
        capturing.suspend_global_capture()
    parent = os.getppid()
    # A closed pipe or Ctrl-C: nobody hears any more why this one ends.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            config.hook.pytest_worker_begins()
            for _ in _run(items):
                if stop.is_set() or os.getppid() != parent:
                    break
        finally:
            # Tears down what is left where it ends early.
            runner: Any = plugins.get_plugin("runner")
            runner.pytest_sessionfinish(session)
        sending.send(None)
