"""The report in a browser: headless Chromium, skipped where there is none."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from nnunet_dml.cli.main import main
from tests.report.conftest import NAMES
from tests.report.evaluation_world import write_evaluation

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the extra `dev`)")
CHROMIUM, DRIVER = (shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver"))
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, report_page):
    """The report, opened anew in a window of a desktop."""
    size(browser, 1200)
    scheme(browser, "light")
    browser.get(report_page.as_uri())
    return browser


def size(browser, width):
    metrics = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def scheme(browser, value):
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def column(browser, k):
    """The texts of a column of the table of cases, those of hidden rows left out."""
    script = "return [...document.querySelectorAll('#case-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[arguments[0]].textContent)"
    return browser.execute_script(script, k)


def sorted_by(browser):
    script = "return [...document.querySelectorAll('#case-table th[aria-sort]')].map(h => h.getAttribute('aria-sort'))"
    return browser.execute_script(script)


def head(browser, k):
    return browser.find_elements("css selector", "#case-table thead button")[k]


def press(browser, key):
    browser.switch_to.active_element.send_keys(key)


def test_it_opens_without_errors_and_asks_the_network_for_nothing(opened, report_page):
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [it["params"]["request"]["url"] for it in messages if it["method"] == "Network.requestWillBeSent"]
    assert {url for url in sent if not url.startswith("data:")} == {report_page.as_uri()}
    assert opened.get_log("browser") == []
    assert opened.title == "Dataset901_Phantom: 2 models"


def test_buttons_sort_by_number_up_and_down(opened):
    values = [float(it) for it in column(opened, 2)]
    head(opened, 2).click()
    assert [float(it) for it in column(opened, 2)] == sorted(values)
    assert sorted_by(opened)[:4] == ["none", "none", "ascending", "none"]
    head(opened, 2).click()
    assert [float(it) for it in column(opened, 2)] == sorted(values, reverse=True)
    assert sorted_by(opened)[2] == "descending"
    last = len(sorted_by(opened))  # the four models' volume biases, +1.23 and −4.56
    bias = next(k for k in range(last - 4, last) if any("−" in text for text in column(opened, k)))
    head(opened, bias).click()
    numbers = [float(it.replace("−", "-")) for it in column(opened, bias)]
    assert numbers == sorted(numbers)
    assert min(numbers) < 0 < max(numbers)


def test_names_sort_as_people_count(opened):
    head(opened, 0).click()
    names = column(opened, 0)
    assert sorted(names) == sorted(NAMES)
    assert names.index("case_10") < names.index("case_9")  # descending
    head(opened, 0).click()
    assert column(opened, 0).index("case_9") < column(opened, 0).index("case_10")


def test_sorting_by_keyboard(opened):
    opened.execute_script("arguments[0].focus()", head(opened, 1))
    press(opened, "\ue004")  # tab
    assert opened.switch_to.active_element == head(opened, 2)
    press(opened, " ")
    assert sorted_by(opened)[2] == "ascending"
    press(opened, "\ue007")  # enter
    assert sorted_by(opened)[2] == "descending"
    outline = opened.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_filter(opened):
    box = opened.find_element("id", "filter")
    box.send_keys("<SCRIPT>")
    assert column(opened, 0) == [NAMES[0]]
    assert opened.find_element("id", "shown").text == "1 of 5 cases"
    box.send_keys("\ue009a\ue000\ue003")  # control and a, backspace
    assert len(column(opened, 0)) == 5
    box.send_keys("nothing like it")
    assert column(opened, 0) == []


def test_the_skip_link_is_first_and_leads_to_the_figures(opened):
    press(opened, "\ue004")
    assert opened.switch_to.active_element.text == "Skip to the figures"
    press(opened, "\ue007")
    assert opened.execute_script("return document.activeElement.id") == "main"


@pytest.mark.parametrize("value", ["light", "dark"])
def test_figures_are_legible_in_both_schemes(opened, value):
    scheme(opened, value)
    paper = _colour(opened, "body", "backgroundColor")
    assert (_luminance(paper) > 0.9) == (value == "light")
    for selector, what, least in (
        ("body", "color", 7),
        (".note", "color", 4.5),
        (".interval", "color", 4.5),
        (".warning", "color", 4.5),
        ("nav a", "color", 4.5),
        ("svg text", "fill", 7),
        *((f"svg [style*='series-{k}']", "stroke", 3) for k in (1, 2)),
    ):
        assert _contrast(_colour(opened, selector, what), paper) >= least, selector
    figure = opened.find_element("css selector", "#reliability svg").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(figure)).convert("L")).astype(float) / 255
    assert (abs(pixels - pixels[0, 0]) > 0.4).mean() > 0.005  # something stands out from the paper


@pytest.mark.parametrize("width", [390, 320, 1200])
def test_the_page_never_scrolls_sideways(opened, width):
    size(opened, width)
    wide, inner = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner <= width


def test_heads_of_columns_never_break_within_a_word(browser, tmp_path):
    """Nor does the page scroll sideways, whatever the models are called."""
    names = ("nnUNetTrainerDML__weighted__2d", "nnUNetTrainerConfigured__nnUNetPlans__3d_fullres", "a" * 60)
    folders = [str(write_evaluation(tmp_path / it, classes=("kidney", "tumour"))) for it in names]
    for chosen in (folders, folders[:1]):
        page = tmp_path / "report.html"
        assert main(["report", *chosen, "-o", str(page), "--resamples", "10"]) == 0
        size(browser, 1280)
        browser.get(page.as_uri())
        wide, broken = browser.execute_script("""
          for (const it of document.querySelectorAll('details')) it.open = true;
          const broken = [], range = document.createRange();
          for (const head of document.querySelectorAll('thead th, thead button'))
            for (const node of head.childNodes)
              for (const word of (node.nodeType === 3 ? node.data : '').matchAll(/[\\p{L}\\p{N}]+/gu)) {
                range.setStart(node, word.index);
                range.setEnd(node, word.index + word[0].length);
                if (range.getClientRects().length > 1) broken.push(word[0]);
              }
          return [document.documentElement.scrollWidth, broken];
        """)
        assert wide <= 1280
        assert {it for it in broken if it != "a" * 60} == set()


def test_it_prints(opened):
    pdf = base64.b64decode(opened.print_page())
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page>") + pdf.count(b"/Type /Page ") <= 40


def test_a_thousand_cases_open_and_sort_quickly(browser, tmp_path):
    folder = write_evaluation(tmp_path / "many", cases=1000)
    page = tmp_path / "many.html"
    assert main(["report", str(folder), "-o", str(page), "--resamples", "10"]) == 0
    assert page.stat().st_size < 5e6
    size(browser, 1200)
    browser.get(page.as_uri())
    script = """
      const button = document.querySelectorAll('#case-table thead button')[2], start = performance.now();
      button.click(); document.body.offsetHeight; return performance.now() - start;
    """
    assert browser.execute_script(script) < 8000  # milliseconds, on a busy machine
    values = [float(it) for it in column(browser, 2)]
    assert values == sorted(values)
    assert len(values) == 1000


def _colour(browser, selector, what):
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    text = browser.execute_script(script, selector, what)
    return [float(it) for it in text[text.index("(") + 1 : -1].split(",")[:3]]


def _luminance(colour):
    """Relative luminance of WCAG 2."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (it / 255 for it in colour)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def _contrast(first, second):
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
