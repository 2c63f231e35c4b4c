"""The page about a model: in a browser it sorts, filters and opens, asks for nothing, and shows the JSON's numbers."""

import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from topobounds import analyze, prune_checkpoint, write_html
from topobounds._records import Record
from topobounds.cli import main

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@pytest.fixture(scope="module")
def arrays():
    draw = np.random.default_rng(0)
    sizes = {"fc1.weight": (30, 50), "fc2.weight": (20, 30), 'odd <b>"name"&</script>.weight': (9, 20)}
    found = {name: draw.standard_normal(size) for name, size in sizes.items()}
    found["fc2.weight"][3] = 0.0
    return {**found, "conv.weight": draw.standard_normal((4, 3, 3, 3)), "fc1.bias": np.zeros(30)}


@pytest.fixture(scope="module")
def report(arrays):
    return analyze(arrays, curves=True, seed=0)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return write_html(report, tmp_path_factory.mktemp("page") / "model.html")


class Cells(HTMLParser):
    """The cells of the tables by row: their values and what they show."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "tr" and "data-place" in attributes:
            self.rows.append([])
        if tag in ("th", "td") and "data-value" in attributes:
            self.rows[-1].append(attributes["data-value"])


def record_in(text):
    (found,) = re.findall(r'<script type="application/json" id="record">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)


def test_the_page_holds_the_record_and_its_numbers(page, report):
    text = page.read_text()
    record = record_in(text)
    assert record == json.loads(json.dumps(report.to_dict()))
    rows = Cells(text).rows
    assert [row[0] for row in rows[: len(record["layers"])]] == [layer["name"] for layer in record["layers"]]
    for row, layer in zip(rows, record["layers"], strict=False):
        numbers = {repr(value) for value in layer.values() if isinstance(value, int | float)}
        assert {value for value in row[2:] if value} <= numbers
        assert repr(layer["overlap"]) in row


def test_nothing_is_loaded_from_anywhere(page):
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)
    assert "url(" not in text
    assert "import " not in text


def test_names_cannot_leave_their_places(page):
    text = page.read_text()
    assert "<b>&#34;name" not in text
    assert "&lt;b&gt;&#34;name&#34;&amp;&lt;/script&gt;" in text
    assert text.count("</script>") == 2


_HOSTILE = "a\x1b[31m\n\0\u202e<i>"


def test_names_are_shown_as_in_a_terminal_and_an_empty_one_as_two_quotes(tmp_path):
    draw = np.random.default_rng(1)
    arrays = {"": np.zeros((9, 8)), _HOSTILE: draw.standard_normal((9, 8)), f"b{_HOSTILE}": np.full((3, 3), np.nan)}
    text = write_html(analyze(arrays, seed=0), tmp_path / "page.html").read_text()
    assert not set(text) & set("\x1b\0\u202e")
    escaped = r"a\x1b[31m\n\x00\u202e<i>"
    assert [row[0] for row in Cells(text).rows] == ["''", escaped, f"b{escaped}"]
    assert escaped.replace("<", "&lt;").replace(">", "&gt;") in text
    assert "<i>" not in text
    assert re.search(r'<a href="#layers-0">&#39;&#39;</a>: All its 72 weights are zero', text)
    assert record_in(text)["layers"][1]["name"] == _HOSTILE
    (row,) = Cells(write_html(analyze({"": arrays[_HOSTILE]}), tmp_path / "one.html").read_text()).rows
    assert row[:2] == ["''", "dense"]


def test_the_curves_are_short_and_within_bounds(report):
    for layer in report.layers:
        curves = layer.curves
        assert len(curves.density) == len(curves.measured) == len(curves.expected) <= 200
        assert len(curves.deaths) <= 200
        assert curves.measured[-1] == 1
        assert list(curves.density) == sorted(curves.density)
        assert all(0 <= low <= high <= 1 for low, high in zip(curves.low, curves.high, strict=True) if low is not None)
        assert [value is None for value in curves.expected] == [value is None for value in curves.low]


def test_a_report_with_curves_is_saved_and_loaded(report, tmp_path):
    report.save(tmp_path / "report.json")
    assert type(report).load(tmp_path / "report.json").to_dict() == report.to_dict()


def test_what_pruning_did_is_a_page(arrays, tmp_path):
    np.savez(tmp_path / "layers.npz", **{name: arrays[name] for name in ("fc1.weight", "fc2.weight")})
    done = prune_checkpoint(tmp_path / "layers.npz", tmp_path / "pruned.npz", density=0.3)
    text = write_html(done, tmp_path / "page.html").read_text()
    layers = record_in(text)["layers"]
    rows = Cells(text).rows
    assert [row[0] for row in rows] == [layer["name"] for layer in layers] == ["fc1.weight", "fc2.weight"]
    for row, layer in zip(rows, layers, strict=True):
        assert {str(layer[key]) for key in ("weights", "kept", "alpha")} | {"true"} <= set(row)


def test_another_record_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="'record' must be one of ModelReport"):
        write_html(Record(), tmp_path / "page.html")


def test_without_jinja2_the_extra_is_named_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    np.save(tmp_path / "layer.npy", np.eye(3))
    with pytest.raises(SystemExit) as left:
        main(["analyze", str(tmp_path / "layer.npy"), "--html", str(tmp_path / "page.html")])
    assert left.value.code == 2
    assert "pip install '.[page]'" in capsys.readouterr().err


def test_the_command_writes_a_page(arrays, tmp_path, capsys):
    np.savez(tmp_path / "layers.npz", **{name: arrays[name] for name in ("fc1.weight", "fc2.weight")})
    with pytest.raises(SystemExit) as left:
        main(["analyze", str(tmp_path / "layers.npz"), "--html", str(tmp_path / "p.html"), "--seed", "0", "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["layers"] == record_in((tmp_path / "p.html").read_text())["layers"]


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    missing = [name for name, found in (("chromium", BROWSER), ("chromedriver", DRIVER)) if not found]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1200,900")
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield made
    made.quit()


@pytest.fixture
def opened(browser, page):
    browser.get_log("performance")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == [], "nothing is written to the console"


def shown(browser, place=0):
    """Return the texts of one column of the first table, rows that are hidden left out."""
    rows = browser.find_elements("css selector", "table[data-table=layers] tbody tr[data-place]")
    return [row.find_elements("xpath", "*")[place].text for row in rows if row.is_displayed()]


def title(browser, text):
    return browser.find_element("xpath", f"//table[@data-table='layers']//thead//button[text()='{text}']")


def test_no_request_is_made(opened):
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert len({url for url in asked if url.startswith("file://")}) == 1


def test_titles_sort_numbers_as_numbers_and_back(opened, report):
    weights = {layer.name: layer.weights for layer in report.layers}
    title(opened, "weights").click()
    assert shown(opened) == sorted(weights, key=weights.get)
    title(opened, "weights").click()
    assert shown(opened) == sorted(weights, key=weights.get, reverse=True)
    header = title(opened, "weights").find_element("xpath", "..")
    assert header.get_attribute("aria-sort") == "descending"


def test_missing_numbers_come_last_both_ways(opened, report):
    known = [layer.name for layer in report.layers if layer.safe_density_expected is not None]
    assert 0 < len(known) < len(report.layers)
    button = opened.find_elements("xpath", "//table[@data-table='layers']//thead//button[text()='by chance']")[0]
    for _ in range(2):
        button.click()
        assert set(shown(opened)[: len(known)]) == set(known)


def test_the_filter_keeps_what_matches_and_says_how_many(opened):
    opened.find_element("css selector", "input[data-filter=layers]").send_keys("FC")
    assert shown(opened) == ["fc1.weight", "fc2.weight"]
    assert opened.find_element("css selector", "[data-count=layers]").text == "2 of 4 rows"


def test_a_layer_opens_by_keyboard_and_shows_its_numbers(opened, report):
    button = opened.find_element("css selector", "button.open")
    opened.execute_script("arguments[0].focus()", button)
    button.send_keys("\n")
    assert button.get_attribute("aria-expanded") == "true"
    details = opened.find_element("id", button.get_attribute("aria-controls"))
    assert len(details.find_elements("css selector", "svg[role=img][aria-label]")) == 2
    layer = report.layers[0].to_dict()
    facts = {fact.get_attribute("data-key"): fact.text for fact in details.find_elements("css selector", "li")}
    assert facts.keys() == layer.keys() - {"curves", "schema_version"}
    for key in ("overlap", "overlap_expected", "neural_persistence", "weights", "critical_rank"):
        assert float(facts[key].removeprefix(f"{key}: ")) == pytest.approx(layer[key], rel=1e-5)
    button.send_keys("\n")
    assert button.get_attribute("aria-expanded") == "false"
    assert not opened.find_elements("id", button.get_attribute("aria-controls"))


def test_what_opens_is_escaped_as_the_table_is(browser, tmp_path):
    browser.get(write_html(analyze({_HOSTILE: np.eye(9)}, seed=0), tmp_path / "page.html").as_uri())
    button = browser.find_element("css selector", "button.open")
    button.click()
    details = browser.find_element("id", button.get_attribute("aria-controls"))
    assert details.find_element("css selector", "h3").get_attribute("textContent") == r"a\x1b[31m\n\x00\u202e<i>"


def test_the_drawn_curve_is_the_record(opened, report):
    opened.find_element("css selector", "button.open").click()
    path = opened.find_element("css selector", "svg path.measured").get_attribute("d")
    heights = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
    assert len(heights) == len(report.layers[0].curves.measured)
    foot, top = 240 - 38, 10
    drawn = [(foot - y) / (foot - top) for y in heights]
    assert drawn == pytest.approx(report.layers[0].curves.measured, abs=1e-3)


def test_every_finding_leads_to_its_layer(opened):
    for link in opened.find_elements("css selector", ".findings a"):
        anchor = link.get_attribute("href").partition("#")[2]
        row = opened.find_element("id", anchor)
        assert row.find_element("css selector", "th").get_attribute("data-value") == link.get_attribute("textContent")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_is_never_wider_than_the_screen(opened, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 1000}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.find_element("css selector", "button.open").click()
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_texts_can_be_told_from_what_is_behind_them(opened):
    """WCAG AA: a contrast of 4.5 of every colour of text, in light and dark."""
    script = """
    const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return Object.fromEntries(arguments[0].map((name) => [name, of(name)]));
    """
    texts = ("--ink", "--soft", "--measured", "--error", "--warning", "--info")
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        colors = opened.execute_script(script, [*texts, "--paper", "--panel"])
        for behind in ("--paper", "--panel"):
            assert min(contrast(colors[text], colors[behind]) for text in texts) >= 4.5, scheme
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def contrast(one, other):
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.long
def test_a_thousand_layers_make_a_page_of_ten_megabytes(browser, report, tmp_path):
    layers = tuple(replace(report.layers[i % 4], name=f"layers.{i}.weight") for i in range(1000))
    file = write_html(replace(report, layers=layers), tmp_path / "large.html")
    assert file.stat().st_size < 10 * 2**20
    browser.get(file.as_uri())
    title(browser, "weights").click()
    assert len(browser.find_elements("css selector", "table[data-table=layers] tbody tr[data-place]")) == 1000
    assert browser.get_log("browser") == []
