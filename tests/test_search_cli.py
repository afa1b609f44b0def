"""``ldsnn optimize`` and ``ldsnn report`` on files, as a user runs them."""

from __future__ import annotations

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from search_worker import data, network
from typer.testing import CliRunner, Result

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.ir.store import write_graph
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.plots import Mark, scatter


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and what ``ldsnn optimize --spikes both`` wrote."""
    where = tmp_path_factory.mktemp("search")
    write_graph(network(), where / "net.ldir")
    given = data(labels=True, count=16)
    (x, y), (u, v) = given.calibration, given.report
    np.savez(where / "data.npz", x_train=x.numpy(), y_train=y.numpy(), x_test=u.numpy(), y_test=v.numpy())  # type: ignore[union-attr]
    done = run(*arguments(where), "--spikes", "both", "--json")
    assert done.exit_code == 0, done.output
    (where / "stdout.json").write_text(done.stdout)
    return where


def arguments(where: Path, name: str = "schedule.json") -> list[str]:
    return [
        "optimize",
        str(where / "net.ldir"),
        "--data",
        str(where / "data.npz"),
        "--budget",
        "0.2",
        "-o",
        str(where / name),
    ]


def test_optimize_writes_schedules_and_the_report(folder: Path):
    report = json.loads((folder / "report.json").read_text())
    answer = json.loads((folder / "stdout.json").read_text())
    assert [r["name"] for r in answer["rows"]] == [r["name"] for r in report["rows"]]
    for file in ("schedule.json", "schedule.graded.json"):
        Schedule.read(folder / file).check(network())
    assert (folder / "schedule.search.db").exists()


def test_the_same_command_again_evaluates_nothing_and_writes_the_same(folder: Path):
    before = (folder / "schedule.json").read_text()
    done = run(*arguments(folder), "--spikes", "both")
    assert done.exit_code == 0 and (folder / "schedule.json").read_text() == before
    assert "left" not in done.stderr and "per layer, graded" in done.stdout


def test_recalibrated_networks_are_written_and_compile_to_the_row(folder: Path, tmp_path: Path):
    done = run(*arguments(folder, "again/schedule.json"), "--recalibrate", "--json", "--storage", "none")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    network = folder / "again" / "schedule.binary.recalibrated.ldir"
    assert str(network) in answer["files"]
    compiled = run("compile", str(network), "--data", str(folder / "data.npz"), "-o", str(tmp_path / "net.ldsnn"))
    assert compiled.exit_code == 0, compiled.output
    ran = run("run", str(tmp_path / "net.ldsnn"), "--data", str(folder / "data.npz"), "--json")
    assert ran.exit_code == 0, ran.output
    (row,) = (r for r in answer["rows"] if r["name"] == "recalibrated per layer, binary")
    (measured,) = json.loads(ran.stdout)["rows"]
    assert measured["accuracy"] == row["accuracy"] and measured["timesteps"] == row["timesteps"]


def test_wrong_usage_is_named(folder: Path):
    missing = run("optimize", str(folder / "net.ldir"), "--storage", "none")
    assert missing.exit_code == 1 and "optimize needs data" in missing.stderr
    cost = run(*arguments(folder, "other.json"), "--cost", "price")
    assert cost.exit_code == 1 and "cost is one of synaptic" in cost.stderr
    assert not (folder / "other.json").exists()


def test_what_is_refused_leaves_no_file(folder: Path, tmp_path: Path):
    scheduled = network()
    scheduled.stage = "scheduled"
    write_graph(scheduled, folder / "scheduled.ldir")
    given = ["--data", str(folder / "data.npz"), "-o", str(tmp_path / "schedule.json")]
    done = run("optimize", str(folder / "scheduled.ldir"), *given)
    assert done.exit_code == 1 and "this one is scheduled" in done.stderr
    target = run("optimize", str(folder / "net.ldir"), *given, "--cost", "latency", "--target", "nowhere")
    assert target.exit_code == 1 and "nowhere" in target.stderr
    held = run("optimize", str(folder / "net.ldir"), *given, "--hold", "no.layer")
    assert held.exit_code == 1 and not list(tmp_path.iterdir())


class Page(HTMLParser):
    """Checks that tags nest, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@cache
def html(folder: Path) -> str:
    done = run("report", str(folder / "report.json"), "-o", str(folder / "page.html"))
    assert done.exit_code == 0, done.output
    return (folder / "page.html").read_text()


def test_the_page_is_whole_and_needs_nothing_else(folder: Path):
    parsed = Page()
    parsed.feed(html(folder))
    assert parsed.open == [] and parsed.links == [] and "script" not in parsed.tags
    assert parsed.tags.count("svg") == 4 and not re.search(r"url\(|@import|https?://", html(folder))


def test_the_page_shows_every_row_and_every_layer(folder: Path):
    report = json.loads((folder / "report.json").read_text())
    for row in report["rows"]:
        assert html(folder).count(row["name"]) > 1
    for path in report["schedules"][report["headline"]]:
        assert path in html(folder)
    assert report["figures"][report["headline"]]["paired"]["verdict"] in html(folder)


def test_names_are_escaped(folder: Path):
    from ldsnn_compiler.search.page import page, read_report

    report = read_report(folder / "report.json") | {"model": "<script>alert(1)</script>"}
    assert "<script>" not in page(report)
    assert "<b>" not in scatter(
        [Mark("<b>", "binary", 1.0, 0.5), Mark("x", "binary", 2.0, 0.6, (0.5, 0.7), True)], "c", "a"
    )


def test_a_file_that_is_no_report_is_refused(folder: Path):
    done = run("report", str(folder / "schedule.json"))
    assert done.exit_code == 1 and "lacks model" in done.stderr
    (folder / "bad.json").write_text("{")
    assert "is no JSON" in run("report", str(folder / "bad.json")).stderr


@pytest.mark.chromium
def test_chromium_renders_the_page(folder: Path, tmp_path: Path):
    import shutil
    import subprocess

    html(folder)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None
    shot = tmp_path / "page.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1100,1600", f"--screenshot={shot}", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and shot.stat().st_size > 30_000
