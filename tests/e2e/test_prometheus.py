"""An operator's Prometheus and Grafana: the shipped files, on what a real autostart tells.

Debian's own prometheus and promtool read them. Of the Grafana board each question is put to that
Prometheus, with Grafana's variables filled in.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from autostart.telemetry import METRICS
from tests.containers import skip_or_fail
from tests.daemon import HOST, ROOT, Daemon, free_port, plain, running

BOARD = ROOT / "config/grafana/autostart.json"
SCRAPE = ROOT / "config/prometheus/prometheus.yaml"
ALERTS = ROOT / "config/prometheus/alerts.yaml"
ALERT_TESTS = Path(__file__).parent / "prometheus/alerts.yaml"
REFERENCE = ROOT / "docs/metrics.md"
TOKEN = "a token"
FAULTY = "faulty.localhost"
# What Grafana puts in: a step of a quarter of a minute, the last half hour, and all services.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "15s",
    "$__range": "30m",
    "$instance": ".*",
    "$service": ".*",
}
# Those of Prometheus' own process client, and what Prometheus adds about each target.
STRANGERS = {
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "up",
}
SERIES = re.compile(r"\b(?:autostart|process)_[a-z_]+|\bup\b")
# Stops that fail, and a restart of autostart: neither happens here.
MAY_BE_EMPTY = {"Failures in a row", "autostart began"}


def require(program: str) -> str:
    """Return the path of a program; skip or fail where it is missing."""
    found = shutil.which(program)
    skip_or_fail(None if found else f"there is no {program}")
    assert found is not None
    return found


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """Run promtool; return what it prints, fail with what it says."""
    done = subprocess.run(
        [require("promtool"), *map(str, arguments)],
        input=given,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def board() -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
    return shown


def board_queries() -> list[tuple[str, str]]:
    """Return the title and the question of everything on the board, variables filled in."""
    asked = [
        (panel["title"], target["expr"])
        for panel in board()["panels"]
        for target in panel.get("targets", ())
    ]
    asked += [(each["name"], each["expr"]) for each in board()["annotations"]["list"][1:]]
    return [(title, filled(query)) for title, query in asked]


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def reference_queries() -> list[str]:
    text = REFERENCE.read_text(encoding="utf-8")
    return re.findall(r"```promql\n([^`]+)```", text)


def alert_queries() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def names_of(queries: list[str]) -> Iterator[str]:
    """Yield the metrics that the queries name, histograms and summaries by their own name."""
    for query in queries:
        for name in SERIES.findall(re.sub(r'"[^"]*"', '""', query)):
            whole = re.sub(r"_(bucket|sum|count)$", "", name)
            yield whole if whole in {each.name for each in METRICS} else name


# The files by themselves.


def test_every_query_asks_for_metrics_that_exist() -> None:
    """The board, the alerts and the reference name nothing that /metrics does not have."""
    queries = [query for _, query in board_queries()] + alert_queries() + reference_queries()
    known = {each.name for each in METRICS} | STRANGERS

    assert set(names_of(queries)) - known == set()


def test_the_board_shows_every_metric() -> None:
    """What autostart counts can be seen, but for what only an alert needs."""
    shown = set(names_of([query for _, query in board_queries()]))
    missing = {each.name for each in METRICS} - shown

    assert missing == {
        "autostart_idle_due_timestamp_seconds",
        "autostart_service_held",
        "autostart_transitions_total",
        "autostart_waiting_max",
    }


def test_the_board_can_be_imported() -> None:
    """Nothing of one Grafana is in it: its data source is a variable, no panel covers another."""
    shown = board()
    panels = shown["panels"]
    sources = {
        json.dumps(each["datasource"]) for each in (*panels, *all_targets()) if "datasource" in each
    }
    covered = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert "id" not in shown
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) == 23
    assert [panel["title"] for panel in panels if not panel.get("description")] == [
        panel["title"] for panel in panels if panel["type"] == "row"
    ]


def all_targets() -> list[dict[str, Any]]:
    return [target for panel in board()["panels"] for target in panel.get("targets", ())]


def test_the_alerts_are_rules() -> None:
    """promtool takes them as they are."""
    assert "SUCCESS" in promtool("check", "rules", ALERTS)


def test_the_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """Histories of metrics, and what each alert says at which minute; no alert has none."""
    shutil.copy(ALERTS, tmp_path / "alerts.rules.yaml")
    shutil.copy(ALERT_TESTS, tmp_path / "alerts.yaml")
    told = {
        each["alertname"]
        for test in yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
        for each in test["alert_rule_test"]
        if each["exp_alerts"]
    }

    assert "SUCCESS" in promtool("test", "rules", tmp_path / "alerts.yaml")
    assert told == {
        rule["alert"]
        for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    }


def test_the_scrape_configuration_is_one(tmp_path: Path) -> None:
    """With the token's file in its place promtool finds nothing wrong."""
    assert "SUCCESS" in promtool("check", "config", scrape_file(tmp_path, "127.0.0.1:8891"))


def scrape_file(folder: Path, target: str) -> Path:
    """Return the shipped configuration for this target, with its token in this folder."""
    token = folder / "autostart.token"
    token.write_text(TOKEN)
    text = SCRAPE.read_text(encoding="utf-8")
    for old, new in (
        ("/etc/prometheus/autostart.token", str(token)),
        ("127.0.0.1:8891", target),
        ("scrape_interval: 15s", "scrape_interval: 500ms"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    written = folder / "prometheus.yaml"
    written.write_text(text)
    shutil.copy(ALERTS, folder)
    return written


# With a real autostart.


class Prometheus:
    """One Prometheus that scrapes one autostart."""

    def __init__(self, port: int, client: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._client = client

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the answer to a question of now; fail if it is none."""
        url = f"{self.url}/api/v1/query"
        async with self._client.get(url, params={"query": query}) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{query}: {answer}"
        result = answer["data"]["result"]
        return result if isinstance(result, list) else []

    async def value(self, query: str) -> float | None:
        answer = await self.ask(query)
        return float(answer[0]["value"][1]) if answer else None

    async def wait_for(self, query: str, *, seconds: float = 30) -> None:
        """Wait until the answer to a question is not empty."""
        deadline = time.monotonic() + seconds
        while not await self.answers(query):
            assert time.monotonic() < deadline, f"no answer to {query} within {seconds} s"
            await asyncio.sleep(0.2)

    async def answers(self, query: str) -> bool:
        try:
            return bool(await self.ask(query))
        except aiohttp.ClientError:
            return False  # it begins


@asynccontextmanager
async def scraping(
    folder: Path, daemon: Daemon, client: aiohttp.ClientSession
) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the shipped files on this autostart, for the length of the block."""
    program, port = require("prometheus"), free_port()
    configuration = scrape_file(folder, f"127.0.0.1:{daemon.admin_port}")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port, client)
    finally:
        process.terminate()
        process.wait(20)


async def request(client: aiohttp.ClientSession, daemon: Daemon, host: str = HOST) -> int:
    async with client.get(f"{daemon.url}/echo", headers={"Host": host}) as response:
        await response.read()
        return response.status


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_metrics_are_what_prometheus_calls_good(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    """promtool's linter has nothing to say about names, types, units and help texts."""
    async with running(tmp_path, {HOST: plain()}) as daemon:
        await request(client, daemon)
        async with client.get(f"{daemon.admin_url}/metrics") as response:
            text = await response.text()

    assert promtool("check", "metrics", given=text) == ""


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSTART_ADMIN_TOKEN", TOKEN)


async def test_every_panel_of_the_board_has_something_to_show(
    tmp_path: Path, client: aiohttp.ClientSession, token: None
) -> None:
    """After some cold starts, a failure and a refusal each question of the board is answered.

    So are those of docs/metrics.md; and the alerts are loaded, and the one that should fires.
    """
    services = {
        HOST: plain("--ready-after", "0.2", idle="6s"),
        FAULTY: plain("--exit-after", "0", idle="2s"),
    }
    assert os.environ["AUTOSTART_ADMIN_TOKEN"] == TOKEN
    async with running(tmp_path, services) as daemon, scraping(tmp_path, daemon, client) as asked:
        # Counters are there before anything happens: the first start is already an increase.
        await asked.wait_for('autostart_starts_total{outcome="ready"} == 0')
        statuses = [await request(client, daemon, host) for host in (HOST, FAULTY, FAULTY)]
        await asked.wait_for("autostart_service_memory_bytes > 0")
        await asked.wait_for("rate(autostart_service_cpu_seconds_total[1m])")
        await asked.wait_for('increase(autostart_transitions_total{to="stopped"}[1m]) > 0')
        statuses.append(await request(client, daemon, FAULTY))
        await asked.wait_for('sum(increase(autostart_requests_total{error!=""}[1m])) > 0')
        statuses.append(await request(client, daemon))
        await asked.wait_for("autostart_service_memory_bytes > 0")
        unanswered = {title for title, query in board_queries() if not await asked.ask(query)}
        for query in reference_queries():
            await asked.ask(query)

        assert statuses == [200, 503, 503, 503, 200]
        assert unanswered <= MAY_BE_EMPTY
        assert await asked.value("sum(autostart_requests_total)") == 5
        assert await asked.ask('autostart_start_failures{service="faulty.localhost"} > 0')
        async with client.get(f"{asked.url}/api/v1/rules") as response:
            loaded = await response.json()
        health = {rule["health"] for rule in loaded["data"]["groups"][0]["rules"]}
        assert health <= {"ok", "unknown"}


async def test_a_refused_map_is_seen(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """From the reload that found problems to the one that found none, whoever asked for it."""

    async def shown() -> str:
        async with client.get(f"{daemon.admin_url}/metrics") as response:
            [line] = re.findall(r"(?m)^autostart_reload_successful (.+)$", await response.text())
            return str(line)

    async with running(tmp_path, {HOST: plain()}) as daemon:
        values = [await shown()]
        for services in ({HOST: plain(nonsense=1)}, {HOST: plain(idle="9m")}):
            daemon.write_map(services)
            async with client.post(f"{daemon.admin_url}/api/reload") as response:
                values += [str(response.status), await shown()]

    assert values == ["1.0", "400", "0.0", "200", "1.0"]
