# SPDX-License-Identifier: Apache-2.0
"""The examples for monitoring: a dashboard that asks for what there is, and units that run it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from xdpkit.cli.app import cli
from xdpkit.monitor.export import HEALTH, exposed_name
from xdpkit.monitor.samples import METRICS

EXAMPLES = Path(__file__).parents[2] / "examples/monitoring"
DASHBOARD = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())

LABELS = {exposed_name(metric): set(metric.labels) for metric in (*METRICS, *HEALTH)}
# What Prometheus adds to each series that it collects.
ADDED = {"instance", "job"}

# Since Grafana 11.0; later ones convert it by themselves.
SCHEMA_VERSION = 39
COLUMNS = 24

_SELECTOR = re.compile(r"(xdpkit_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"')
_BY = re.compile(r"\bby \(([^)]*)\)")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")
_VARIABLE = re.compile(r"\$(\w+)")

PROGRAM = "/usr/local/bin/xdpkit"


def panels() -> list[dict[str, Any]]:
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def targets() -> Iterator[dict[str, Any]]:
    for panel in panels():
        yield from panel["targets"]


QUERIES = [target["expr"] for target in targets()]


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def labels_within(text: str) -> set[str]:
    """Return the labels in what stands between the braces of a selector."""
    assert _MATCHER.sub("", text).strip(" ,") == ""
    return set(_MATCHER.findall(text))


def grouped_by(query: str) -> set[str]:
    return {name.strip() for group in _BY.findall(query) for name in group.split(",")}


def test_the_schema_is_that_of_a_current_grafana() -> None:
    assert DASHBOARD["schemaVersion"] == SCHEMA_VERSION
    assert DASHBOARD["title"]
    # What an installation gives it.
    assert "id" not in DASHBOARD


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_metrics_and_labels_that_there_are(query: str) -> None:
    selectors = _SELECTOR.findall(query)
    assert len(selectors) == 1
    ((name, matchers),) = selectors
    assert name in LABELS
    assert labels_within(matchers) <= LABELS[name] | ADDED
    assert grouped_by(query) <= LABELS[name] | ADDED


@pytest.mark.parametrize("query", QUERIES)
def test_counters_are_shown_as_rates_and_states_are_not(query: str) -> None:
    ((name, _),) = _SELECTOR.findall(query)
    assert name.endswith("_total") == bool(re.search(r"\b(rate|increase)\(", query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_keeps_to_what_was_chosen(query: str) -> None:
    ((name, matchers),) = _SELECTOR.findall(query)
    for label in ("instance", "netns", "interface"):
        chosen = f'{label}=~"${label}"' in matchers
        assert chosen == (label in LABELS[name] | {"instance"}), label


def test_every_metric_is_shown() -> None:
    assert {_SELECTOR.findall(query)[0][0] for query in QUERIES} == set(LABELS)


def test_variables_are_defined_and_have_a_choice_of_all() -> None:
    found = variables()
    assert list(found) == ["datasource", "instance", "netns", "interface"]
    used = {name for text in _texts(DASHBOARD) for name in _VARIABLE.findall(text)}
    assert used - {"__rate_interval", "__range", "__all"} <= set(found)
    for name in ("instance", "netns", "interface"):
        # Also those series that have no such label, as those of the own namespace.
        assert found[name]["allValue"] == ".*"
        assert found[name]["includeAll"]
        assert found[name]["current"]["value"] == ["$__all"]


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for each in data.values():
            yield from _texts(each)
    elif isinstance(data, list):
        for each in data:
            yield from _texts(each)


def test_variables_offer_labels_that_there_are() -> None:
    for name in ("instance", "netns", "interface"):
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variables()[name]["definition"])
        assert match is not None
        assert match[2] == name
        selector = match[1]
        if selector.startswith("{"):
            assert labels_within(selector[1:-1]) <= {"__name__", "netns", *ADDED}
            assert '__name__=~"xdpkit_.+"' in selector
        else:
            assert selector in LABELS


def test_a_legend_names_what_the_query_is_grouped_by() -> None:
    for target in targets():
        assert set(_LEGEND.findall(target["legendFormat"])) == grouped_by(target["expr"])


def test_all_of_it_asks_the_data_source_that_was_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    places: list[tuple[int, int]] = []
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        places += itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        )
    assert len(set(places)) == len(places)


def commands(unit: str) -> list[list[str]]:
    """Return what a unit runs, without options."""
    lines = [line for line in (EXAMPLES / unit).read_text().splitlines() if line.startswith("Exec")]
    return [[word for word in line.split("=", 1)[1].split() if word[0] != "$"] for line in lines]


UNITS = ("xdpkit-export.service", "xdpkit-monitor.service")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name
    unit.write_text((EXAMPLES / name).read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_units_run_commands_that_there_are() -> None:
    found = [command for unit in UNITS for command in commands(unit)]
    assert found == [
        [PROGRAM, "export"],
        [PROGRAM, "monitor", "install"],
        [PROGRAM, "monitor", "remove"],
    ]
    for _, verb, *rest in found:
        context = click.Context(cli)
        command = cli.get_command(context, verb)
        assert command is not None
        # Parses, or raises a usage error.
        command.make_context(verb, list(rest), parent=context)
        if isinstance(command, click.Group):
            assert rest[0] in command.commands
