# SPDX-License-Identifier: Apache-2.0
"""What all tests share: golden files, and an honest account of what did not run.

With ``XDPKIT_REQUIRE_KERNEL=1`` a skipped test fails, unless ``expected-skips.txt`` has it: a run
that could not test is then no success.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import workers

TESTS = Path(__file__).parent
REQUIRE_KERNEL = os.environ.get("XDPKIT_REQUIRE_KERNEL") == "1"

# Time limits on examples measure the machine, not the code. CI judges a change, so it draws the
# same examples each time; new ones are looked for by whoever runs the tests, and by make soak.
hypothesis.settings.register_profile(
    "xdpkit", deadline=None, print_blob=True, derandomize=os.environ.get("CI") == "true"
)
hypothesis.settings.load_profile("xdpkit")

_PEERS = (
    "bpf-gcc",
    "bpftool",
    "capsh",
    "ethtool",
    "ip",
    "prometheus",
    "promtool",
    "tcpdump",
    "tmux",
    "tshark",
    "xdp-loader",
)

_KERNEL_TEST = "kernel test"

_kernel_tests: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--bless", action="store_true", help="rewrite the golden files")
    pluginmanager.register(workers)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_kernel_test(item):
            item.add_marker("kernel")
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker("golden")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if _is_kernel_test(item) and os.geteuid() != 0:
        pytest.skip("needs root: make test runs these through sudo")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name in ``golden/`` beside the test."""

    def compare(name: str, text: str) -> None:
        path = request.path.parent / "golden" / name
        if request.config.getoption("--bless"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: make bless"
        assert text == path.read_text(), f"not as in {path}; if it is meant so: make bless"

    return compare


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and REQUIRE_KERNEL:
        _fail_unless_expected(report)
    # A test that ends in its set-up has no call.
    if _is_kernel_test(item) and (report.when == "call" or (report.when == "setup" and skipped)):
        report.user_properties.append((_KERNEL_TEST, "skipped" if skipped else "ran"))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _kernel_tests.update(str(said) for name, said in report.user_properties if name == _KERNEL_TEST)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and REQUIRE_KERNEL:
        _fail_unless_expected(report)
    return report


def pytest_report_header() -> str:
    privilege = "root" if os.geteuid() == 0 else "no privilege"
    return f"kernel: Linux {platform.release()}, {privilege}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if missing := list(_missing_peers()):
        terminalreporter.write_line(f"not here to compare with: {', '.join(missing)}")
        terminalreporter.write_line("  (make test-peers installs what apt has of them)")
    if _kernel_tests:
        counts = ", ".join(f"{number} {what}" for what, number in sorted(_kernel_tests.items()))
        terminalreporter.write_line(f"kernel tests: {counts}")


def _is_kernel_test(item: pytest.Item) -> bool:
    return item.path.is_relative_to(TESTS / "kernel")


def _fail_unless_expected(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    test = report.nodeid.partition("[")[0]
    for expected_test, expected_reason in _expected_skips():
        if test.endswith(expected_test) and expected_reason in reason:
            return
    report.outcome = "failed"
    report.longrepr = f"{reason}\n(XDPKIT_REQUIRE_KERNEL=1, and not in tests/expected-skips.txt)"


def _expected_skips() -> Iterator[tuple[str, str]]:
    for line in (TESTS / "expected-skips.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            test, _, reason = line.partition(" ")
            yield test, reason.strip()


def _missing_peers() -> Iterator[str]:
    """Yield the names of those that the tests would use and that are not here."""
    # Where tools for administrators are, and a user's PATH often does not lead.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    clangs = [version for version in range(14, 20) if shutil.which(f"clang-{version}", path=path)]
    if len(clangs) < 2:
        yield "clang (two versions of 14 to 19)"
    for tool in _PEERS:
        if shutil.which(tool, path=path) is None:
            yield tool
    if not any(Path("/usr/lib").glob("*/bpf/*.o")):
        yield "libxdp's objects"
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        yield "libbpf.so.1"
