"""What a browser shows of an app under autoreload: its error page, and pages that reload themselves."""

import json

import httpx
import pytest

from support.browser import Browser
from support.check import Servers
from support.polling import wait_until
from support.project import DOES_NOT_RUN, Project
from support.server import Server

FLASK = "module_wsgi version_app:flask"
SCRIPT = "new EventSource("
PAGE = "<!doctype html><title>page</title><body><p id='version'>1</p></body>\n"
BROKEN = "raise RuntimeError('<b id=\"evil\">&amp; <script>window.evil = 1</script>')\n"


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_the_error_page_in_chromium(browser: Browser, serve: Servers, project: Project) -> None:
    project.module.write_text(BROKEN)
    server = serve(project.site("autoreload", app=FLASK))
    page = browser.open(server.url + "/page")
    page.wait_for("!!document.querySelector('h1')")
    text = page.evaluate("document.querySelector('#message').innerText")
    assert text.endswith('RuntimeError: <b id="evil">&amp; <script>window.evil = 1</script>'), text
    assert f'File "{project.module}"' in page.evaluate("document.querySelector('#traceback').innerText")
    assert page.evaluate("[document.title, document.querySelectorAll('#evil, script').length, window.evil]") == [
        "version_app:flask does not run", 0, None,
    ]  # fmt: skip
    assert not page.seen("Runtime.exceptionThrown")


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_pages_reload_themselves(browser: Browser, serve: Servers, project: Project) -> None:
    site = project.site("autoreload browser", app=FLASK)
    server = serve(f"encode gzip\n{site}")
    policy = "default-src 'none'; script-src 'self'"
    pages = [browser.open(f"{server.url}/page{query}") for query in ("", f"?Content-Security-Policy={policy}")]

    def all_show(wanted: str) -> None:
        for page in pages:
            page.wait_for(f"document.querySelector('#version')?.innerText == {json.dumps(wanted)}")

    all_show("1")
    project.write("2")
    all_show("2")
    project.module.write_text(BROKEN)
    for page in pages:
        page.wait_for("document.querySelector('#traceback')?.innerText.includes('RuntimeError')")
    project.write("3")
    all_show("3")
    project.write("4")
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    all_show("4")
    assert server.reload(f"respond /health 200\nencode gzip\n{site}").returncode == 0, "nor does an open page delay it"
    for page in pages:
        assert not page.seen("Runtime.exceptionThrown")
    assert len(pages[0].seen("Page.frameNavigated")) < 12, "they do not reload for ever"


def test_partial_updates_open_no_more_connections(browser: Browser, serve: Servers, project: Project) -> None:
    """Six would be all that Chromium has for a host over HTTP/1.1, and each lasts as long as the page."""
    server = serve(project.site("autoreload browser", app=FLASK))
    page = browser.open(server.url + "/page")
    page.wait_for("!!document.querySelector('#version') && document.readyState == 'complete'")
    # What htmx, Turbo and jQuery do with a fragment: its scripts run. Here it has the page's own, as if its request had
    # not said what it is for.
    page.evaluate("""
        const own = document.scripts[document.scripts.length - 1].textContent
        for (let n = 0; n < 8; n++) {
            const script = document.createElement("script")
            script.textContent = own
            document.body.append(script)
        }
        fetch("/page").then(response => response.text()).then(text => window.fragment = text)
    """)
    assert page.wait_for("window.fragment") == PAGE
    requests = [sent["request"]["url"] for sent in page.seen("Network.requestWillBeSent")]
    assert len([url for url in requests if "caddysnake-refresh" in url]) == 1
    project.write("2")
    page.wait_for("document.querySelector('#version')?.innerText == '2'")
    assert not page.seen("Runtime.exceptionThrown")


def get(server: Server, query: str = "", method: str = "GET", **headers: str) -> httpx.Response:
    """A page with the response headers that the query names."""
    return server.request(method, f"/page?{query}", headers=headers)


def test_what_gets_the_script(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload browser", app=FLASK))
    plain = get(server)
    assert plain.text.startswith(PAGE + "<script>")
    assert SCRIPT in plain.text
    assert plain.headers["cache-control"] == "no-store"
    assert "content-length" not in get(server, method="HEAD").headers
    assert get(server, method="HEAD").content == b""
    assert "etag" not in get(server, "ETag=x").headers
    assert SCRIPT in get(server, **{"Range": "bytes=0-3", "If-None-Match": "x", "Accept-Encoding": "gzip"}).text
    strict = get(server, "Content-Security-Policy=default-src 'none'")
    nonce = strict.text.split('nonce="')[1].split('"')[0]
    assert strict.headers["content-security-policy"] == (
        f"default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'"
    )
    assert nonce not in get(server, "Content-Security-Policy=default-src 'none'").text, "one for each response"
    for query in ("Content-Type=text/plain", "Content-Type=application/xhtml%2Bxml", "Content-Encoding=br"):
        assert raw(server, query) == PAGE.encode()


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_only_what_becomes_a_document_gets_the_script(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload browser", app=FLASK))
    pages = [{"Sec-Fetch-Dest": kind} for kind in ("document", "iframe", "frame", "embed", "object")]
    pages.append({"Sec-Fetch-Dest": "document", "X-Requested-With": "XMLHttpRequest"})
    fragments = [{"Sec-Fetch-Dest": "empty"}, {"X-Requested-With": "XMLHttpRequest"}, {"HX-Request": "true"}]
    for headers in pages:
        assert SCRIPT in get(server, **headers).text, headers
    for headers in fragments:
        response = get(server, "ETag=x", **headers)
        assert response.text == PAGE, headers
        assert response.headers["etag"] == "x", "all of it is the app's"
        assert "cache-control" not in response.headers
    project.module.write_text(BROKEN)
    wait_until(lambda: get(server).status_code == 500, "broken version")
    for headers in (*pages, *fragments):
        text = get(server, **headers, Accept="text/html").text
        assert "<h1>" in text
        assert (SCRIPT in text) == (headers in pages), headers


def raw(server: Server, query: str) -> bytes:
    """The body of a page as it was sent."""
    with server.client.stream("GET", f"/page?{query}") as response:
        return b"".join(response.iter_raw())


def test_other_pages_are_left_alone(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", app=FLASK))
    assert get(server).text == PAGE
    assert get(server).headers["content-length"] == str(len(PAGE))


def test_the_events(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload browser", app=FLASK))
    edition = get(server).text.split('refresh="+"')[1].split('"')[0]
    headers = {"Accept": "text/event-stream"}
    with server.client.stream("GET", f"/page?caddysnake-refresh={edition}", headers=headers) as response:
        lines = response.iter_lines()
        assert response.headers["content-type"] == "text/event-stream"
        assert next(lines) == "retry: 1000"
        project.write("2")
        assert [line for line in lines if line] == ["event: refresh", "data: "]
    old = server.get(f"/page?caddysnake-refresh={edition}", headers=headers)
    assert "event: refresh" in old.text, "whoever asks late is told at once"
    wait_until(lambda: "'version'>2<" in get(server, "caddysnake-refresh=x").text, "the app, which may have that query")
