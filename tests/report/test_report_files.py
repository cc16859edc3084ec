"""The three files: alike every time, escaped, asking nothing of a network, each number in the JSON."""

import base64
import html
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tasks.report.config import STAGE, report_node
from tasks.report.curves import MAX_POINTS, draw_loss, thinned
from tasks.report.facts import ReportFacts
from tasks.report.files import build_report, make_report, report_json
from tasks.report.numbers import MINUS
from tasks.report.page import Report, excerpt, render_html, render_markdown
from tasks.report.svg import LIGHT, image_address
from tasks.store.manifest import Manifest
from tasks.store.paths import Store
from tasks.store.shard import build_node

FILES = ("report.json", "report.md", "report.html")
VOID = {"meta", "br", "link", "img", "input", "hr"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


class Page(HTMLParser):
    """Checks that tags close in order; collects ids, attributes and the text outside figures and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" not in self.open and "style" not in self.open:
            self.text += data + " "


def build(root: Path, facts: Any, store: Store | None = None) -> tuple[Manifest, dict[str, str]]:
    store = store or Store(str(root))
    node = report_node("edu-small", "0" * 64, {"corpus 5M": "1" * 64}, facts)
    manifest, made = build_node(store, node, build_report, room="tasks.report", shard="report")
    assert made
    return manifest, {name: store.read(f"{manifest.path}/{name}").decode() for name in FILES}


@pytest.fixture
def page_text(whole_report: Report) -> str:
    return render_html(whole_report)


@pytest.mark.slow
def test_the_same_facts_give_the_same_bytes(tmp_path: Path, facts_json: dict[str, Any]) -> None:
    first, written = build(tmp_path / "one", facts_json)
    second, again = build(tmp_path / "two", facts_json)
    assert written == again
    assert first.files == second.files
    assert first.stage == STAGE
    assert first.details["kinds"] == {"bits_per_byte.domain": "gain", "bits_per_byte.general": "loss"}


def test_facts_may_lie_in_the_store(tmp_path: Path, facts_json: dict[str, Any]) -> None:
    facts_json["funnel"] = facts_json["milestones"] = []
    _, inline = build(tmp_path / "one", facts_json)
    store = Store(str(tmp_path / "two"))
    store.write("work/report/facts.json", json.dumps(facts_json).encode())
    _, stored = build(tmp_path / "two", "work/report/facts.json", store)
    assert inline == stored


def test_where_the_facts_lie_is_no_identity(facts_json: dict[str, Any]) -> None:
    inline = report_node("edu", "0" * 64, {}, facts_json)
    assert inline.fingerprint == report_node("edu", "0" * 64, {}, "work/facts.json").fingerprint


@pytest.mark.slow
def test_every_number_on_the_page_is_in_the_json(whole_report: Report, page_text: str) -> None:
    known = set(NUMBER.findall(json.dumps(report_json(whole_report), ensure_ascii=False)))
    shown = set(NUMBER.findall(Page(page_text).text))
    assert len(shown) > 100
    assert shown - known == set()


def test_what_a_cell_shows_is_its_value(whole_report: Report) -> None:
    for table in whole_report.tables.values():
        for row in table.rows:
            for cell in row:
                if isinstance(cell.value, int | float) and re.fullmatch(
                    rf"[{MINUS}+]?[\d,]*\.?\d*", cell.text
                ):
                    shown = float(cell.text.replace(",", "").replace(MINUS, "-"))
                    digits = len(cell.text.partition(".")[2])
                    assert shown == pytest.approx(cell.value, abs=0.51 * 10**-digits)


def test_the_page_parses_and_its_ids_are_its_own(page_text: str) -> None:
    page = Page(page_text)
    assert page_text.startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    for name, value in page.attributes:
        if name == "href":
            assert value.removeprefix("#") in page.ids
        for target in re.findall(r"url\(#([^)]+)\)", value):
            assert target in page.ids


def test_the_page_asks_nothing_of_a_network(page_text: str) -> None:
    page = Page(page_text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "video", "audio"}
    assert "//" not in page_text
    assert "@import" not in page_text
    assert "default-src 'none'" in page_text


def test_figures_are_svg_with_text_and_the_themes_colours(whole_report: Report) -> None:
    names = ["loss", "learning_rate", "change", "bits_per_byte", "throughput", "memory"]
    names += ["funnel_domain", "funnel_general"]
    assert list(whole_report.drawings) == names
    for drawing in whole_report.drawings.values():
        assert ET.fromstring(drawing.svg).tag == "svg"
        assert "<text" in drawing.svg
        assert re.findall(r"#[0-9a-fA-F]{6}\b", drawing.svg) == []
        assert "font-family" not in drawing.svg


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x^2$ & {{ 7*7 }}"]
)
def test_text_is_escaped(facts_json: dict[str, Any], evil: str) -> None:
    for milestone in facts_json["milestones"]:
        milestone["curve"] = []
    facts_json["recipe"]["name"] = evil
    facts_json["recipe"]["base_model"] = evil
    facts_json["funnel"][1]["stage"] = evil
    facts_json["funnel"][1]["dropped"] = {evil: 5007}
    facts_json["sources"][0]["notes"] = [evil]
    facts_json["milestones"][0]["scores"][evil] = {"score": 0.5}
    facts_json["lineage"]["config"] = {evil: evil}
    report = make_report(ReportFacts.model_validate(facts_json))
    page = Page(render_html(report))
    assert not page.tags & {"script", "img"}
    assert evil in page.text
    markdown = render_markdown(report).partition("## Lineage")[0]
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert html.unescape(markdown.splitlines()[0]).replace("\\", "") == f"# {evil}"


def test_samples_stand_base_beside_the_largest_milestone(whole_report: Report, page_text: str) -> None:
    page, markdown = Page(page_text).text, render_markdown(whole_report)
    assert page.count("Lesson ") == len(whole_report.facts.samples) == 10
    for told in (page, markdown):
        assert told.count("holds the nucleus.") == 10
        assert "is alive." not in told, "of the milestones between it is in the JSON alone"
    assert "- 12M tokens: holds the nucleus.\n- The document: is the cell." in markdown


def test_what_a_model_wrote_is_told_without_its_empty_space() -> None:
    assert excerpt(" is\n\n  \n\n\n a\n  b\n\n") == "is\n\n a\n  b"
    assert excerpt("\n") == "(ends at once)"


@pytest.mark.slow
def test_dates_stand_in_the_lineage_alone(tmp_path: Path, facts_json: dict[str, Any]) -> None:
    facts_json["milestones"] = facts_json["milestones"][:1]
    facts_json["milestones"][0]["curve"] = []
    _, written = build(tmp_path / "with", facts_json)
    facts_json["lineage"] = {}
    _, without = build(tmp_path / "without", facts_json)
    for name in FILES:
        assert "2026-01-02" in written[name]
        assert re.findall(r"\d{4}-\d{2}-\d{2}", without[name]) == []


def test_a_report_of_hardly_anything_is_still_one(tmp_path: Path, facts_json: dict[str, Any]) -> None:
    milestone = {"budget": 1, "tokens": 1, "sequences": 1, "shards": 1, "steps": 1, "tokens_trained": 1}
    bare_curve = {"curve": [[1, 1, None, 0.0, None]]}
    bare = {
        "recipe": facts_json["recipe"],
        "machine": facts_json["machine"],
        "milestones": [milestone | bare_curve],
    }
    _, written = build(tmp_path, bare)
    Page(written["report.html"])
    assert "was not measured" in written["report.md"]
    assert list(json.loads(written["report.json"])["figures"]) == ["learning_rate"]


@pytest.mark.slow
def test_many_milestones_are_drawn_apart(facts_json: dict[str, Any]) -> None:
    first = facts_json["milestones"][0]
    facts_json["milestones"] = [first | {"budget": (n + 1) * 10**6} for n in range(6)]
    svg = make_report(ReportFacts.model_validate(facts_json)).drawings["loss"].svg
    assert "stroke-dasharray" in svg
    assert "6M" in svg


def test_a_long_curve_is_averaged_and_keeps_its_mean_and_end() -> None:
    points = [(float(n), float(n % 7)) for n in range(4 * MAX_POINTS)]
    drawn = thinned(points)
    assert len(drawn) == MAX_POINTS
    assert drawn[-1][0] == points[-1][0]
    mean = sum(y for _, y in points) / len(points)
    assert sum(y for _, y in drawn) / len(drawn) == pytest.approx(mean)
    assert thinned(points[:9]) == [list(point) for point in points[:9]]


def test_a_figure_without_the_page_is_a_picture_in_its_light_colours(page_text: str) -> None:
    drawing = draw_loss({400_000: [(1000, 5.0), (2000, None), (3000, 4.0)]})
    assert drawing is not None
    assert drawing.data["lines"][0]["points"] == [[1000, 5.0], [3000, 4.0]]
    kind, _, data = image_address(drawing).partition(",")
    assert kind == "data:image/svg+xml;base64"
    picture = base64.b64decode(data).decode()
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in picture
    assert LIGHT["var(--series-1)"] in picture
    light = page_text[: page_text.index("prefers-color-scheme: dark")]
    assert all(colour in light for colour in LIGHT.values())


def test_a_training_without_a_step_has_no_figure() -> None:
    assert draw_loss({400_000: []}) is None
