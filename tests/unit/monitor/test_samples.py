# SPDX-License-Identifier: Apache-2.0
"""The standard names, and what becomes a series of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from tests.unit.cli.reports import counts, program, report
from tests.unit.monitor.snapshots import (
    HERE,
    THERE,
    attached,
    error,
    full,
    snapshot,
)
from xdpkit.monitor.model import Reason, Snapshot, Where
from xdpkit.monitor.samples import (
    ERRORS,
    INSTALLED,
    METRICS,
    MISSED,
    OTHER,
    PROGRAM,
    RETURNED,
    Metric,
    Sample,
    samples,
)

Golden = Callable[[str, str], None]


def of(found: Snapshot, metric: Metric) -> dict[tuple[str, ...], int]:
    return {each.labels: each.value for each in samples(found) if each.metric == metric}


def shown(sample: Sample) -> str:
    labels = ", ".join(f"{name}={value!r}" for name, value in sample.labelled.items())
    return f"{sample.metric.name}{{{labels}}} {sample.value}"


def test_everything_in_a_snapshot_has_a_standard_name(golden: Golden) -> None:
    golden("samples.txt", "".join(f"{shown(each)}\n" for each in samples(full())))


def test_every_metric_has_a_sample_where_there_is_something_of_everything() -> None:
    assert {each.metric for each in samples(full())} == set(METRICS)


def test_each_series_is_there_once() -> None:
    seen = Counter((each.metric, each.labels) for each in samples(full()))
    assert set(seen.values()) == {1}


def test_names_are_those_of_prometheus_and_say_what_they_are() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("xdpkit_")
        assert not metric.name.endswith("_total")
        assert metric.meaning.endswith(".")
        assert len(set(metric.labels)) == len(metric.labels)


def test_ids_are_labels_of_the_info_metric_only() -> None:
    changing = {"program_id", "tag", "map_id", "ifindex"}
    assert [metric for metric in METRICS if changing & set(metric.labels)] == [PROGRAM]


def test_errors_of_one_name_with_different_ids_are_one_series() -> None:
    found = snapshot(error(program_id=1, packets=3), error(program_id=2, packets=4))
    assert of(found, ERRORS) == {("", "eth0", "firewall", "aborted", "aborted"): 7}


def test_programs_of_one_name_on_one_interface_are_one_series() -> None:
    one = report(program(1, {0: counts(drop=1)}), program(2, {0: counts(drop=2)}))
    found = of(replace(snapshot(), returned=(one,)), RETURNED)
    assert found["", "eth0", "0", "firewall", "drop"] == 3


def test_a_failed_redirect_that_no_redirect_error_tells_of_is_an_error() -> None:
    failed = error(action="redirect", reason=Reason.REDIRECT_FAILED, packets=5)
    ((labels, packets),) = of(snapshot(failed), ERRORS).items()
    assert (labels[-1], packets) == ("redirect_failed", 5)


def test_interfaces_of_one_name_in_two_namespaces_are_two_series() -> None:
    red, blue = (Where(netns, "eth0", 2) for netns in ("red", "blue"))
    found = of(snapshot(error(red, packets=1), error(blue, packets=2)), ERRORS)
    assert {labels[0]: value for labels, value in found.items()} == {"red": 1, "blue": 2}


def test_without_resident_programs_nothing_is_said_to_be_zero() -> None:
    found = replace(snapshot(), installed=None)
    assert of(found, INSTALLED) == {(): 0}
    assert of(found, OTHER) == of(found, MISSED) == {}


def test_with_resident_programs_zeros_are_said() -> None:
    assert of(snapshot(), INSTALLED) == {(): 1}
    assert of(snapshot(), OTHER) == of(snapshot(), MISSED) == {(): 0}


def test_a_program_that_is_attached_twice_is_one_line_of_information_for_each() -> None:
    found = replace(snapshot(), attached=(attached(HERE), attached(THERE), attached(HERE)))
    assert sorted(of(found, PROGRAM).values()) == [1, 1]
