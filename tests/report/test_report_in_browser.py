"""The page in a real browser: laid out on a phone, on a desk and on paper, read in both themes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.report.facts import ReportFacts
from tasks.report.files import make_report
from tasks.report.page import Report, render_html
from tests.report.browser import CHROMEDRIVER, CHROMIUM, Browser, Theme, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="no Chromium with its driver here"),
]

A4_WIDTH = 688
"""CSS pixels between margins of 14 mm."""

CONTRASTS = """
const luminance = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * x + .7152 * y + .0722 * z;
};
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const behind = element => {
  for (; element; element = element.parentElement) {
    const found = numbers(getComputedStyle(element).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const worst = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const ink = numbers(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(behind(element))];
  worst.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), element.textContent.trim().slice(0, 40)]);
}
return worst.sort((x, y) => x[0] - y[0]).slice(0, 3).concat([[worst.length, "texts"]]);
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, whole_report: Report) -> Path:
    """With long names, four milestones and text without a space."""
    facts_json: dict[str, Any] = whole_report.facts.model_dump(mode="json")
    facts_json["funnel"] += [facts_json["funnel"][0] | {"stage": "a stage of a rather long name"}]
    facts_json["recipe"]["name"] = "a-name-without-any-space-" * 5
    facts_json["samples"][0]["continuations"]["base"] = "no" * 300
    small, large = facts_json["milestones"]
    facts_json["milestones"] = [small, large, large | {"budget": 10**8}, large | {"budget": 10**9}]
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render_html(make_report(ReportFacts.model_validate(facts_json))))
    return file


def test_nothing_is_wider_than_the_window(window: Browser, page: Path) -> None:
    for width in (360, 768, 1200):
        window.show(page, width=width)
        wide, figures = window.run(
            "return [document.documentElement.scrollWidth, document.querySelectorAll('figure svg').length]"
        )
        assert wide <= width
        assert figures == 8
    window.show(page, width=360)
    assert window.run("return innerWidth") == 360, "it is shown as a phone shows it"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(window: Browser, page: Path, theme: Theme) -> None:
    window.show(page, width=1200, theme=theme)
    red, *_ = map(
        int, re.findall(r"\d+", window.run("return getComputedStyle(document.body).backgroundColor"))
    )
    assert (red > 200) == (theme == "light")
    *worst, (texts, _) = window.run(CONTRASTS)
    assert texts > 300, "those of tables and figures"
    assert worst[0][0] >= 4.5, worst  # WCAG 2.2, 1.4.3 (AA)


def test_on_paper_all_is_there_in_black_on_white(window: Browser, page: Path) -> None:
    window.show(page, width=A4_WIDTH, theme="dark", media="print")
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.run("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert window.run("return document.documentElement.scrollWidth") <= A4_WIDTH
    cut = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert window.run(cut) == 0, "a table that scrolls on a screen is cut on paper"
    hidden = "return [...document.querySelectorAll('details pre')].filter(e => e.clientHeight === 0).length"
    assert window.run(hidden) == 0, "what is folded on a screen is not on paper"
    paper = window.printed()
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 3
