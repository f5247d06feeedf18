"""HTML reports as people use them, in Debian's Chromium: search, sort, open, by pointer and by keyboard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_script
from stackfit.analysis import analyse
from stackfit.cli.main import main
from stackfit.report.html import render
from stackfit.report.html_check import check_page
from stackfit.report.html_model import Column, Page, Records, Section

pytest.importorskip("plotly", reason="the extra html is not installed")
by = pytest.importorskip("selenium.webdriver.common.by", reason="selenium is not installed").By
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
actions = pytest.importorskip("selenium.webdriver").ActionChains

pytestmark = pytest.mark.slow
tools = load_script("browser")
SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"
ROWS = 50_000
# Names of the sample's symbols, and what stands in their place: as long, and markup.
NAMES = {
    b"copy_user_string": b"<b>y</b><i>z</i>",  # on the deepest chain; Plotly would obey it
    b"raw_irqentry_exit_cond_resched": b'<img src=x onerror="pwned=1" >',
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample with hostile names; a table as long as a kernel's; a simulation."""
    place = tmp_path_factory.mktemp("reports")
    data = (SAMPLE / "vmlinux").read_bytes()
    for name, hostile in NAMES.items():
        assert data.count(b"\0" + name + b"\0") == 1 and len(name) == len(hostile)
        data = data.replace(b"\0" + name + b"\0", b"\0" + hostile + b"\0")
    (place / "vmlinux").write_bytes(data)
    analysis = analyse([place / "vmlinux"], [SAMPLE / "vendor_blob.ko"], ["linux-x86_64", "linux-x86_64-4k"])
    (place / "check.html").write_text(render(check_page(analysis)), encoding="utf-8")
    columns = (
        Column("name", "function", "code", [f"function_{row:05}" for row in range(ROWS)]),
        Column("frame", "frame", "bytes", [row * 7919 % 1000 if row % 10 else None for row in range(ROWS)]),
    )
    section = Section("frames", "Frames", (Records("long", "Frames", columns, "frame", noun="functions"),))
    (place / "long.html").write_text(render(Page("Long", "", (), (section,))), encoding="utf-8")
    assert main(["simulate", "anon-holes", "--html", str(place / "simulate.html")]) == 0
    return {file.stem: file for file in place.glob("*.html")}


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    try:
        with tools.browser() as found:
            yield found
    except tools.Missing as error:
        pytest.skip(f"no browser: {error}")


# A report with charts takes seconds to load: it is used again, with what tests do to it undone.
RESET = """
if (location.hash) history.replaceState(null, '', location.pathname);
document.querySelector('#details .close')?.click();
for (const one of document.querySelectorAll('input[type=search]')) {
  one.value = '';
  one.dispatchEvent(new Event('input'));
}
"""


@pytest.fixture
def page(session: Any, reports: dict[str, Path]) -> Iterator[Any]:
    """Opens a report; whatever a test does with it, the console stays silent and nothing is fetched."""

    def opener(name: str) -> Any:
        if name == "check" and session.current_url.split("#")[0] == reports[name].as_uri():
            session.execute_script(RESET)
        else:
            tools.open_report(session, reports[name])
        return session

    yield opener
    assert [entry for entry in session.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert session.execute_script("return performance.getEntriesByType('resource').length") == 0


def cells(session: Any, table: str, column: int) -> list[str]:
    """What stands in a column, of the rows that exist."""
    script = "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)"
    return list(session.execute_script(script, f"#table-{table} tr[data-at] td:nth-child({column})"))


def count(session: Any, table: str) -> str:
    output = session.find_element(by.CSS_SELECTOR, f'.records[data-key="{table}"] output')
    return str(output.text).replace("\u202f", "")


def search(session: Any, table: str, text: str) -> None:
    field = session.find_element(by.ID, f"table-{table}-search")
    field.clear()
    field.send_keys(text)


def bytes_of(texts: list[str]) -> list[int]:
    return [int("".join(char for char in text if char.isdigit())) for text in texts if text != "—"]


def test_search_by_words_and_numbers(page: Any) -> None:
    session = page("check")
    everything = count(session, "frames")
    search(session, "frames", "KSYS_ poll")
    assert cells(session, "frames", 1) == ["ksys_poll"]
    assert count(session, "frames") == f"1 of {everything}"
    search(session, "frames", "frame>500")
    found = bytes_of(cells(session, "frames", 3))
    assert found and min(found) > 500
    search(session, "frames", "no such function")
    assert cells(session, "frames", 1) == [] and count(session, "frames").startswith("0 of")
    search(session, "frames", " ")
    assert count(session, "frames") == everything


def test_sort_both_ways_with_what_has_no_value_last(page: Any) -> None:
    session = page("long")
    heading = session.find_element(by.CSS_SELECTOR, "#table-long th[data-key=frame]")
    assert heading.get_attribute("aria-sort") == "descending"
    assert bytes_of(cells(session, "long", 2)) == sorted(bytes_of(cells(session, "long", 2)), reverse=True)
    heading.find_element(by.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    shown = cells(session, "long", 2)
    assert "—" not in shown and bytes_of(shown) == sorted(bytes_of(shown))
    name = session.find_element(by.CSS_SELECTOR, "#table-long th[data-key=name]")
    name.find_element(by.TAG_NAME, "button").click()
    assert cells(session, "long", 1)[0] == "function_00000"
    assert heading.get_attribute("aria-sort") == "none"


def test_a_long_table_has_only_the_rows_on_screen_and_goes_to_its_end(page: Any) -> None:
    session = page("long")
    assert count(session, "long") == f"{ROWS} functions"
    assert 0 < len(cells(session, "long", 1)) < 100
    session.find_element(by.CSS_SELECTOR, '#table-long tr[data-at="0"]').click()
    actions(session).send_keys(keys.END).perform()
    focused = session.switch_to.active_element
    assert focused.get_attribute("aria-rowindex") == str(ROWS + 1)
    assert focused.find_elements(by.TAG_NAME, "td")[1].text == "—"
    assert 0 < len(cells(session, "long", 1)) < 100
    actions(session).send_keys(keys.ARROW_UP).perform()
    assert session.switch_to.active_element.get_attribute("aria-rowindex") == str(ROWS)


def test_frames_and_contexts_open_by_keyboard_and_lead_to_each_other(page: Any) -> None:
    session = page("check")
    search(session, "frames", "ksys_poll")
    row = session.find_element(by.CSS_SELECTOR, '#table-frames tr[data-at="0"]')
    session.execute_script("arguments[0].focus()", row)
    actions(session).send_keys(keys.ENTER).perform()
    details = session.find_element(by.ID, "details")
    assert details.is_displayed() and details.find_element(by.TAG_NAME, "h2").text == "ksys_poll"
    details.find_element(by.PARTIAL_LINK_TEXT, "syscall poll").click()
    assert details.find_element(by.TAG_NAME, "h2").text == "syscall poll (x86-64)"
    chain = [cell.text for cell in details.find_elements(by.CSS_SELECTOR, "table.chain td:nth-child(3)")]
    assert chain[0] == "(entry frame)" and "ksys_poll" in chain
    assert details.find_element(by.CSS_SELECTOR, ".plot .main-svg").is_displayed()
    session.back()
    assert details.find_element(by.TAG_NAME, "h2").text == "ksys_poll"
    actions(session).send_keys(keys.ESCAPE).perform()
    assert not details.is_displayed()


def test_a_click_on_a_block_of_the_chart_opens_the_frame(page: Any) -> None:
    session = page("check")
    plot = session.find_element(by.CSS_SELECTOR, 'figure[data-key="icicle"] .plot')
    session.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    labels = {text.text: text for text in plot.find_elements(by.CSS_SELECTOR, ".bartext")}
    (label,) = [text for text in labels if text.startswith("ksys_poll")]
    actions(session).move_to_element(labels[label]).click().perform()
    details = session.find_element(by.ID, "details")
    assert details.is_displayed() and details.find_element(by.TAG_NAME, "h2").text == "ksys_poll"


def test_names_with_markup_stay_text_everywhere(page: Any) -> None:
    session = page("check")
    search(session, "frames", "<")
    hostile = sorted(name.decode() for name in NAMES.values())
    assert sorted(cells(session, "frames", 1)) == hostile
    for number in (0, 1):
        session.find_element(by.CSS_SELECTOR, f'#table-frames tr[data-at="{number}"]').click()
        assert session.find_element(by.CSS_SELECTOR, "#details h2").text in hostile
    names = session.find_element(by.ID, "icicle-scale").find_elements(by.TAG_NAME, "option")[1]
    names.click()
    plot = session.find_element(by.CSS_SELECTOR, 'figure[data-key="icicle"] .plot')
    assert "<b>y</b>" in plot.text
    assert session.execute_script("return document.images.length") == 0
    assert session.execute_script("return window.pwned") is None


def test_it_follows_the_system_to_dark_and_a_switch_overrules_it(page: Any) -> None:
    session = page("simulate")

    def background() -> str:
        return str(session.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def axis() -> str:
        return str(
            session.execute_script("return getComputedStyle(document.querySelector('.xtick text')).fill")
        )

    def becomes(wanted: Callable[[tuple[str, str]], bool]) -> tuple[str, str]:
        """The colours, once they are as wanted: charts are drawn anew some time later."""
        for _ in range(100):
            if wanted((background(), axis())):
                break
            time.sleep(0.1)
        colours = background(), axis()
        assert wanted(colours), colours
        return colours

    light = background(), axis()
    tools.scheme(session, "dark")
    dark = becomes(lambda colours: colours[0] != light[0] and colours[1] != light[1])
    button = session.find_element(by.ID, "theme")
    button.click()
    assert button.text == "Theme: light"
    becomes(lambda colours: colours == light)
    tools.scheme(session, "light")
    button.click()
    assert button.text == "Theme: dark"
    becomes(lambda colours: colours == dark)
    button.click()
    becomes(lambda colours: colours == light)


def test_paper_gets_the_head_of_long_tables_and_what_is_folded(page: Any) -> None:
    session = page("long")
    session.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(cells(session, "long", 1)) == 60
    note = session.find_element(by.CSS_SELECTOR, ".print-only").get_attribute("textContent")
    assert note.replace("\u202f", "").startswith(f"The first 60 of {ROWS} functions")
    session.execute_script("dispatchEvent(new Event('afterprint'))")
    session = page("check")
    assert session.find_elements(by.CSS_SELECTOR, "details:not([open])")
    session.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not session.find_elements(by.CSS_SELECTOR, "details:not([open])")
    widths = "return [...document.querySelectorAll('.plot .main-svg')].map((chart) => chart.clientWidth)"
    assert 0 < max(session.execute_script(widths)) <= 700, "charts fit a sheet"
    session.execute_script("dispatchEvent(new Event('afterprint'))")


def test_controls_have_names_and_tables_their_roles(page: Any) -> None:
    session = page("check")
    unnamed = session.execute_script(
        """return [...document.querySelectorAll('input, select, button')].filter((one) =>
             !one.textContent.trim() && !one.ariaLabel && !(one.labels && one.labels.length)).length"""
    )
    assert unnamed == 0
    for plot in session.find_elements(by.CSS_SELECTOR, ".plot"):
        assert plot.get_attribute("role") == "img" and plot.get_attribute("aria-label")
    table = session.find_element(by.ID, "table-frames")
    assert table.get_attribute("role") == "grid" and table.get_attribute("aria-label") == "Frames"
    assert int(table.get_attribute("aria-rowcount")) > 100


def test_a_narrow_screen_scrolls_tables_not_the_page(page: Any) -> None:
    session = page("check")
    try:
        tools.resize(session, 380, 800)
        assert session.execute_script("return document.documentElement.scrollWidth") <= 380
    finally:
        tools.resize(session, 1440, 1000)
