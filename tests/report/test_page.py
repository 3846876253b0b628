"""The page: everything that the summary says, safe whatever a name holds, the same bytes every time, and small."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from dom import Element, read
from many_records import write_many
from synthetic import USUAL, build, failed, record_of, trace_of

from dbbench.report.definitions import DEFINITIONS
from dbbench.report.document import markdown, plain
from dbbench.report.page import build as page_build
from dbbench.report.page import write_page
from dbbench.report.page.markup import inline
from dbbench.report.run import load
from dbbench.report.summary import write_report
from dbbench.report.tables import comparison
from dbbench.report.verdict import verdict
from dbbench.results.store import RunFolder

HOSTILE = "<script>alert(1)</script>"
ERROR = "boom </script><img src=x onerror=alert(1)> <!-- & \"quoted\" 'twice'"
VARIANTS = (*USUAL[:3], replace(USUAL[4], label=HOSTILE), USUAL[7])
PAGE_BYTES = 5_000_000


RUN = {"variants": VARIANTS, "seeds": 2, "failures": [failed(USUAL[2], 1, "failed", ERROR)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with a variant and an error that are named to do harm."""
    path = tmp_path_factory.mktemp("run")
    build(path, **RUN)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dom(page):
    return read(page)


def test_another_folder_with_the_same_run_gives_the_same_bytes(folder, page, tmp_path):
    """Broken if the page holds a date, a random id or the folder's path."""
    build(tmp_path / "elsewhere", **RUN)
    write_page(tmp_path / "again.html", [load(tmp_path / "elsewhere")])
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    assert str(folder) not in page


def test_the_page_is_small_enough_for_an_email(folder):
    assert (folder / "report.html").stat().st_size < PAGE_BYTES


def test_nothing_is_asked_of_a_network(dom):
    """Broken if an element loads something."""
    for element in dom.all():
        for name in ("src", "href", "srcset", "action", "data"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/svg+xml;base64,")), element


def test_the_policy_lets_only_the_two_scripts_of_the_page_run(dom, page):
    metas = [m for m in dom.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    policy = dict(part.split(" ", 1) for part in metas[0].attributes["content"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "connect-src" not in policy and "unsafe" not in policy["script-src"]
    scripts = [s for s in dom.all("script") if "type" not in s.attributes]
    assert len(scripts) == 1
    own = page_build.policy_source(scripts[0].text.encode())
    assert policy["script-src"].split()[0] == own
    assert len(policy["script-src"].split()) == 2
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_names_and_errors_are_shown_and_never_run(dom):
    assert [s.attributes.get("type", "") for s in dom.all("script")] == ["application/json", "text/plain", ""]
    assert not [i for i in dom.all("img") if i.attributes["src"] == "x"]
    assert not [e for e in dom.all() if any(name.startswith("on") for name in e.attributes)]
    shown = {code.text for code in dom.all("code")}
    assert HOSTILE in shown
    cells = [cell.text for cell in dom.one("section", id="cells-that-did-not-finish").all("td")]
    assert " ".join(ERROR.split()) in cells


def test_the_timelines_data_is_json_that_no_name_can_leave(dom):
    body = dom.one("script", id="timeline-data").text
    assert "<" not in body and ">" not in body and "&" not in body
    assert HOSTILE in [variant["name"] for variant in json.loads(body)["variants"]]


def test_every_heading_of_the_summary_is_a_heading_of_the_page(folder, dom):
    """Broken if the page leaves out what the summary has."""
    summary = (folder / "summary.md").read_text()
    titles = {line.removeprefix("## ") for line in summary.split("\n") if line.startswith("## ")}
    assert titles <= {heading.text for heading in dom.all("h2")}
    assert {"Budget", "Definitions", "What was not measured", "Cells that did not finish"} <= titles


def test_every_cell_of_the_summarys_tables_is_in_the_page(folder, dom):
    """The Markdown is undone by its own rules, so that a cell that one of the two forms mangles is found."""
    summary = (folder / "summary.md").read_text()
    rows = [line for line in summary.split("\n") if line.startswith("| ") and "| ---" not in line]
    unescaped = [re.sub(r"\\([\\`*_{}\[\]<>#|~$&!])", r"\1", row.replace("`", "")) for row in rows]
    found = {"| " + " | ".join(c.text for c in row.elements) + " |" for row in dom.all("tr")}
    assert len(rows) > 60
    assert set(unescaped) <= found


def test_the_verdict_stands_at_the_top_as_the_terminal_says_it(folder, dom):
    run = load(folder)
    sentences = dom.one("p", class_="verdict").text
    assert sentences == plain(verdict(run, comparison(run)))
    assert sentences.count(". ") + 1 >= 3
    first = [e.text for e in dom.one("main").all() if e.tag in ("h1", "h2", "p")][:3]
    assert first[2] == sentences


@pytest.mark.parametrize("words", [*DEFINITIONS, "no NVML", "ab" * 32, "0123abcd", "adamw (fused)", "seeds"])
def test_the_page_says(dom, words):
    assert words in dom.text


def test_figures_are_sorted_by_exact_values(dom):
    """Broken if a table sorts by what is rounded for display."""
    rows = dom.one("table", id="memory-at-the-peak-of-a-training-step-mib-0").one("tbody").elements
    peaks = {row.elements[0].text: row.elements[1].attributes["data-value"] for row in rows}
    assert peaks["backprop"] == str(record_of(USUAL[0], 0).row.peak_bytes)
    assert float(rows[1].elements[2].attributes["data-value"]) != round(float(rows[1].elements[2].text[:-1]), 2)


def test_every_table_has_a_caption_and_scrolls_alone(dom):
    tables = list(dom.all("table"))
    regions = [region for region in dom.all("div", class_="scroll") if list(region.all("table"))]
    assert len(tables) == len(regions) > 8
    ids = {element.attributes["id"] for element in dom.all() if "id" in element.attributes}
    for region, table in zip(regions, tables, strict=True):
        assert table.elements[0].tag == "caption" and table.elements[0].text.strip()
        assert region.attributes["tabindex"] == "0" and region.attributes["role"] == "region"
        assert region.attributes["aria-labelledby"] in ids
        assert all(th.attributes["scope"] for th in table.all("th"))


def test_every_figure_has_an_alternative_with_its_main_numbers(dom):
    images = list(dom.all("img"))
    assert len(images) == 5
    for image in images:
        assert "backprop" in image.attributes["alt"] and re.search(r"\d\.\d\d", image.attributes["alt"])
    assert "133.00 MiB" in images[0].attributes["alt"]
    assert all(figure.one("figcaption").text for figure in dom.all("figure"))


def test_the_page_has_a_language_landmarks_and_headings_in_order(dom):
    assert dom.one("html").attributes["lang"] == "en"
    assert dom.one("title").text.startswith("vision")
    assert [e.tag for e in dom.one("body").elements if e.tag in ("a", "header", "footer")] == ["a", "header", "footer"]
    assert dom.one("a").attributes["href"] == "#" + dom.one("main").attributes["id"]
    levels = [int(e.tag[1]) for e in dom.all() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(two - one <= 1 for one, two in pairwise(levels))


def test_ids_are_unique_and_every_link_finds_its_place(dom):
    ids = [element.attributes["id"] for element in dom.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {link.attributes["href"][1:] for link in dom.all("a")} <= set(ids)


def sums(details: Element) -> int:
    """Check that a tree's node holds what its children hold, all the way down; return its bytes."""
    own = int(details.attributes["data-bytes"])
    below = [child for child in details.elements if "data-bytes" in child.attributes]
    if details.tag == "details":
        assert sum(sums(child) for child in below) == own
    return own


def test_the_trees_of_what_is_held_sum_to_the_peaks(dom):
    trees = list(dom.all("details", class_="tree"))
    peaks = {variant.label: record_of(variant, 0).row.peak_bytes for variant in VARIANTS}
    assert {tree.one("code").text: sums(tree) for tree in trees} == peaks
    layers = next(d for d in trees[0].all("details") if d.one("span", class_="name").text == "layers")
    assert {d.one("span", class_="name").text for d in layers.elements if d.tag == "details"} >= {"0", "1", "5"}


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    rgb = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def themes() -> list[dict[str, str]]:
    style = page_build._file("page.css")
    blocks = re.findall(r":root[^{,]*\{\s*color-scheme: (?:light|dark);([^}]*)\}", style)
    return [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks]


def test_text_has_the_contrast_of_aa_in_light_and_in_dark():
    """W3C's ratio of luminances, 4.5 for text."""
    light, chosen_dark, system_dark = themes()[:3]
    assert chosen_dark == system_dark and light.keys() == chosen_dark.keys()
    for colors in (light, chosen_dark):
        pairs = [(text, ground) for text in ("ink", "quiet", "link") for ground in ("paper", "raised", "tint")]
        for text, ground in [*pairs, ("warn", "paper"), ("ink", "warn-paper")]:
            one, other = sorted((luminance(colors[text]), luminance(colors[ground])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, (text, ground)


def test_marks_in_a_name_cannot_make_markup():
    """A name may hold the very characters that mark names."""
    from dbbench.report.document import code, data, strong

    forged = f"a\x02<b>\x05{HOSTILE}"
    assert str(inline(code(forged))) == "<code>a&lt;b&gt;&lt;script&gt;alert(1)&lt;/script&gt;</code>"
    assert markdown(strong(data("a\x06*b*"))) == "**a\\*b\\***"
    assert plain(code(forged)) == f"a<b>{HOSTILE}"


@pytest.mark.usefixtures("only_timeline")
def test_a_run_without_a_trace_has_a_page_without_the_library(tmp_path):
    build(tmp_path, variants=USUAL[:2], seeds=1, traces=False, curves=False)
    write_report(tmp_path)
    found = read((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert not list(found.all("section", id="timeline"))
    assert "not drawn" in found.one("section", id="figures").text
    assert {tree.one("code").text: sums(tree) for tree in found.all("details", class_="tree")} == {
        variant.label: record_of(variant, 0).row.peak_bytes for variant in USUAL[:2]
    }, "the record says what was held where there is no trace"


@pytest.mark.usefixtures("only_timeline")
def test_a_run_in_which_everything_failed_has_its_page(tmp_path):
    lost = [failed(variant, 0, "out_of_memory", "12 GiB asked") for variant in USUAL[:2]]
    build(tmp_path, variants=USUAL[:2], seeds=1, failures=lost)
    write_report(tmp_path)
    text = read((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "2 of 2 cells did not finish" in text and "12 GiB asked" in text


@pytest.mark.usefixtures("only_timeline")
def test_several_runs_stand_side_by_side_with_what_changed_between_them(tmp_path):
    """The smaller variant grew by 2 MiB between the last two; the first run trained something else under a name."""
    grown = replace(USUAL[1], label=HOSTILE)
    build(tmp_path / "odd", variants=[replace(USUAL[0], options={"policy": "<b>"})], seeds=2)
    build(tmp_path / "old", variants=[USUAL[0], grown], seeds=2)
    build(tmp_path / "new", variants=[USUAL[0], replace(grown, activations_mib=24.0)], seeds=2)
    runs = [load(tmp_path / name) for name in ("odd", "old", "new")]
    write_page(tmp_path / "together" / "report.html", runs)
    dom = read((tmp_path / "together" / "report.html").read_text(encoding="utf-8"))
    between = dom.one("section", id="between")
    assert [heading.text for heading in between.all("h3")] == ["From odd to old", "From old to new"]
    assert "Not compared: odd and old are not of the same configurations: backprop: options" in between.text
    rows = [[cell.text for cell in row.elements] for row in between.one("tbody").elements]
    assert [HOSTILE, "peak", "MiB", "higher", "35.00", "37.00", "+2.00"] in rows
    assert {row[3] for row in rows} == {"higher"}, "what is the same is folded away"
    folded = between.one("details")
    assert {row.elements[3].text for row in folded.one("tbody").elements} == {"same"}
    assert [heading.text for heading in dom.one("section", id="verdict").all("h3")] == ["odd", "old", "new"]
    names = [variant["name"] for variant in json.loads(dom.one("script", id="timeline-data").text)["variants"]]
    assert names == ["odd: backprop", "old: backprop", f"old: {HOSTILE}", "new: backprop", f"new: {HOSTILE}"]
    compared = [row.elements[0].text for row in dom.one("section", id="result-and-cost").one("tbody").elements]
    assert compared == names


@pytest.mark.slow
def test_ten_thousand_records_make_a_page_in_seconds_that_can_still_be_sent(tmp_path):
    """Traces make it larger, by the library and eight timelines; what is left out is counted."""
    write_many(tmp_path / "many")
    folder = RunFolder(tmp_path / "many")
    for traced in (False, True):
        run = load(tmp_path / "many")
        begun = time.process_time()
        write_page(tmp_path / "report.html", [run])
        assert time.process_time() - begun < 20
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert len(page.encode()) < PAGE_BYTES
        assert ('id="timeline-data"' in page) == traced
        assert "The tables below show 300 of 3,400 configurations" in page
        assert re.search(r"Not listed: .* and \d,\d+ more", page)
        for configuration in run.configurations[::100]:
            folder.write_trace(configuration.costliest.row.config_hash, trace_of(configuration.costliest))
