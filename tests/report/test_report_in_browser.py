"""The page in a real browser: laid out without overflow, on a phone and on a desk."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.report.config import ReportFacts
from tasks.report.files import make_report
from tasks.report.page import render_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1200)
# Frames of the wanted widths tell their page's scroll width; a headless window is never under 500 px.
PROBE = """<!doctype html><pre id=out></pre><script>
for (const width of [360, 1200]) {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:3000px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument;
    const wide = page.documentElement.scrollWidth, figures = page.querySelectorAll("figure svg").length;
    document.getElementById("out").append(` frame=${width} page=${wide} figures=${figures};`);
  };
  frame.src = "report.html";
  document.body.append(frame);
}
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.slow
def test_nothing_is_wider_than_the_window(tmp_path: Path, facts_json: dict[str, Any]) -> None:
    assert CHROMIUM is not None
    facts_json["funnel"] += [facts_json["funnel"][0] | {"stage": "a stage of a rather long name"}]
    facts_json["recipe"]["name"] = "a-name-without-any-space-" * 5
    (tmp_path / "report.html").write_text(render_html(make_report(ReportFacts.model_validate(facts_json))))
    (tmp_path / "probe.html").write_text(PROBE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [CHROMIUM, *options, (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told = re.findall(r"frame=(\d+) page=(\d+) figures=(\d+);", done.stdout)
    assert {int(frame) for frame, _, _ in told} == set(WIDTHS), done.stdout[-500:]
    for frame, page, figures in told:
        assert int(page) <= int(frame)
        assert int(figures) == 8
