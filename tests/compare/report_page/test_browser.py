"""The page in a real browser: no complaint, no request, and filters that filter."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from browser import Tab, browser
from sutura.compare.publish import report

Make = Callable[..., Path]
WIDTHS = (390, 1280)
VISIBLE = "Array.from(document.querySelectorAll('.item')).filter(n => n.offsetParent !== null)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, comparison: Make) -> Path:
    made = comparison(tmp_path_factory.mktemp("runs"), pictures=12, wrong="<b>nothing</b> & more")
    return report(made).with_suffix(".html")


def choose(tab: Tab, name: str, value: str) -> None:
    tab.run(
        f"(() => {{ const f = document.getElementById('{name}'); f.value = {value!r}; "
        "f.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_without_complaint_or_request(tab: Tab, page: Path, width: int, scheme: str) -> None:
    tab.open(page, width, 900, scheme)
    assert tab.complaints == []
    assert tab.requests == [page.resolve().as_uri()]
    assert tab.run("document.documentElement.scrollWidth") == width, "the page is wider than the screen"
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    pictures = "Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)"
    assert tab.run("document.images.length") > 10
    assert tab.run(f"Promise.all(Array.from(document.images).map(i => i.decode())).then(() => {pictures})")


def test_filters_show_what_fits_and_nothing_else(tab: Tab, page: Path) -> None:
    tab.open(page)
    total = tab.run("document.querySelectorAll('.item').length")
    assert tab.run(f"{VISIBLE}.length") == min(24, total)
    kinds = tab.run("Array.from(document.querySelectorAll('#kind option')).map(o => o.value)")
    assert kinds == ["", "all right", "all wrong", "encoders disagree", "mixed"]
    choose(tab, "kind", "encoders disagree")
    wanted = tab.run("document.querySelectorAll('.item[data-kind=\"encoders disagree\"]').length")
    assert tab.run(f"{VISIBLE}.length") == min(24, wanted) > 0
    assert tab.run(f"{VISIBLE}.every(n => n.dataset.kind === 'encoders disagree')")
    assert f"of {wanted}" in tab.run("document.getElementById('shown').textContent")
    choose(tab, "right", "0")
    choose(tab, "wrong", "1")
    assert tab.run(f"{VISIBLE}.length") > 0
    assert tab.run(f"{VISIBLE}.every(n => n.dataset.right === '0')")
    tab.run("document.querySelector('.filters').reset()")
    tab.run("new Promise(done => setTimeout(done, 20))")
    family = tab.run("document.querySelector('.item').dataset.family")
    choose(tab, "family", family)
    assert tab.run(f"{VISIBLE}.every(n => n.dataset.family === {family!r})")
    choose(tab, "find", "no such word anywhere")
    assert tab.run(f"{VISIBLE}.length") == 0
    assert "No item" in tab.run("document.getElementById('shown').textContent")
    assert tab.complaints == []


def test_search_reads_answers_and_more_shows_more(tab: Tab, page: Path) -> None:
    tab.open(page)
    choose(tab, "find", "<b>NOTHING</b> more")
    found = tab.run(f"{VISIBLE}.length")
    assert found > 0
    assert tab.run(f"{VISIBLE}.every(n => n.textContent.includes('<b>nothing</b> & more'))")
    choose(tab, "find", "")
    before = tab.run(f"{VISIBLE}.length")
    total = tab.run("document.querySelectorAll('.item').length")
    tab.run("document.getElementById('more').click()")
    assert tab.run(f"{VISIBLE}.length") == min(2 * before, total) > before


def test_the_policy_holds_against_a_script_that_got_in(tab: Tab, page: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    evil = '<script>document.title = "owned"</script><img src="http://example.invalid/x.png">'
    planted.write_text(page.read_text().replace("<main>", f"<main>{evil}", 1))
    tab.open(planted)
    assert tab.run("document.title") != "owned"
    assert any("Content Security Policy" in said for said in tab.complaints)


def test_no_connection_is_opened(tmp_path: Path, page: Path) -> None:
    """A proxy that only counts: the browser would have to go through it for anything that is not a file."""
    server = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                asked.append(connection.recv(200))

    threading.Thread(target=listen, daemon=True).start()
    quiet = ("--disable-background-networking", "--disable-component-update", "--no-first-run")
    proxy = f"--proxy-server=127.0.0.1:{server.getsockname()[1]}"
    ask = (
        "new Promise(done => { const i = new Image(); i.onload = i.onerror = () => done(1); "
        "i.src = 'http://example.invalid/picture'; })"
    )
    open_page = tmp_path / "open.html"
    open_page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text()))
    with browser(tmp_path / "profile", proxy, *quiet) as tab:
        tab.open(page)
        assert tab.requests == [page.resolve().as_uri()]
        tab.run(ask)
        assert not any(b"example.invalid" in line for line in asked), "the content policy let a request out"
        tab.open(open_page)
        tab.run(ask)
        assert any(b"example.invalid" in line for line in asked), "the proxy would have seen a request"
    server.close()
