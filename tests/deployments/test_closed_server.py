"""What `unfreeze up` runs answers its own pages and commands, and nobody else: a page of another site gets nothing."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployments.browser import CHROMIUM, FLAGS, foreign_requests, needs_chromium, sign_in
from tests.deployments.service import Processes, Up, free_port, own_environment, prefect, running_up

pytestmark = pytest.mark.slow

ATTACK = """
async ([api, rebound, mlflow]) => {
    const got = {};
    const attempt = async (name, act) => {
        try { got[name] = await act(); } catch (error) { got[name] = null; }
    };
    const flow = JSON.stringify({name: "planted"});
    const json = {"Content-Type": "application/json"};
    const read = async answer => answer.ok ? await answer.text() : null;
    const post = async (address, body) => read(await fetch(address, {method: "POST", headers: json, body}));
    await attempt("read", () => post(`${api}/deployments/filter`, "{}"));
    await attempt("write", () => post(`${api}/flows/`, flow));
    await attempt("write without asking", async () => {
        await fetch(`${api}/flows/`, {method: "POST", mode: "no-cors", body: flow}); return null;
    });
    await attempt("rebound write", () => post(`${rebound}/flows/`, flow));
    await attempt("rebound read", async () => read(await fetch(`${rebound}/admin/version`)));
    await attempt("events", () => new Promise(resolve => {
        const socket = new WebSocket(api.replace("http", "ws") + "/events/in", ["prefect"]);
        socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: null}));
        socket.onmessage = message => resolve(message.data);
        socket.onclose = () => resolve(null);
        setTimeout(() => resolve(null), 3000);
    }));
    const experiments = `${mlflow}/api/2.0/mlflow/experiments/create`;
    await attempt("mlflow", () => post(experiments, flow));
    await attempt("mlflow without asking", async () => {
        await fetch(experiments, {method: "POST", mode: "no-cors", body: flow}); return null;
    });
    return got;
}
"""
"""What a page of another site can try: read and write across origins, write without reading the answer, pretend to be
the server's own page by a name that leads here (DNS rebinding), open a socket."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as up:
        yield up


def test_a_request_under_another_name_or_without_credentials_gets_nothing(up: Up) -> None:
    for address in (f"{up.api}/admin/version", f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"):
        foreign = httpx.get(address, headers={"Host": "evil.example"}, auth=_account(up))
        assert foreign.status_code in (400, 403), address
        assert "experiment" not in foreign.text
    assert httpx.get(f"{up.api}/admin/version").status_code == 401
    assert httpx.post(f"{up.api}/deployments/filter", json={}).status_code == 403  # no token
    assert httpx.get(f"{up.api}/admin/version", auth=_account(up)).status_code == 200


@needs_chromium
def test_a_page_of_another_site_gets_nothing_where_prefect_alone_obeys_it(up: Up, tmp_path: Path) -> None:
    with _prefect_alone(tmp_path) as api:
        obeyed = _attack(tmp_path, api, up.mlflow)
        assert obeyed["write"], "the attack itself does not work, so that the rest of this test says nothing"
        assert obeyed["rebound write"]
    got = _attack(tmp_path, up.api, up.mlflow)
    assert {name for name, answer in got.items() if answer} == set()
    assert "planted" not in {flow["name"] for flow in up.request("POST", "/flows/filter", {})}
    found = httpx.get(f"{up.mlflow}/api/2.0/mlflow/experiments/search?max_results=50").json()["experiments"]
    assert "planted" not in {each["name"] for each in found}


@needs_chromium
def test_the_pages_ask_no_other_machine(up: Up) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        strangers = foreign_requests(page)
        sign_in(page, up)
        expect(page.get_by_text("Dashboard").first).to_be_visible()
        # The page that asks an analytics host is not offered.
        assert page.get_by_text("V2 UI").count() == 0
        for address in [*_pages(up), f"{up.api.removesuffix('/api')}/settings"]:
            page.goto(address)
            expect(page.locator("body")).not_to_be_empty()
            page.wait_for_timeout(1500)  # time to ask whom it wants; that nobody is asked has no other sign
        # Whatever a page may hold, the browser does not let it out.
        page.goto(up.api.removesuffix("/api"))
        escaped = page.evaluate("fetch('https://evil.example/').then(() => 'out', () => 'held back')")
        browser.close()
    assert escaped == "held back"
    assert [each for each in strangers if "evil.example" not in each] == []


def test_credentials_and_data_are_readable_by_their_owner_only(up: Up) -> None:
    assert up.data.stat().st_mode & 0o777 == 0o700
    assert (up.data / "prefect.auth").stat().st_mode & 0o777 == 0o600
    for process in up.record()["parts"].values():
        command = Path("/proc", process.split(":")[0], "cmdline")
        assert not command.exists() or _account(up)[1].encode() not in command.read_bytes()


def _account(up: Up) -> tuple[str, str]:
    user, _, password = up.environment["PREFECT_API_AUTH_STRING"].partition(":")
    return user, password


def _pages(up: Up) -> list[str]:
    pages = [line.split()[-1] for line in up.unfreeze("open", "--print").stdout.splitlines() if "http" in line]
    assert all("workflowType=machine_learning" in page for page in pages if page.startswith(up.mlflow))
    return pages


def _attack(folder: Path, api: str, mlflow: str) -> dict[str, Any]:
    """Open a page of evil.example in a browser for which that name leads to this machine, and let it try."""
    from playwright.sync_api import sync_playwright

    port = api.removesuffix("/api").rsplit(":", 1)[1]
    with _site(folder) as site, sync_playwright() as playwright:
        mapped = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, mapped])
        page = browser.new_page()
        page.goto(f"http://evil.example:{site}/page.html")
        got: dict[str, Any] = page.evaluate(ATTACK, [api, f"http://evil.example:{port}/api", mlflow])
        browser.close()
        return got


@contextmanager
def _site(folder: Path) -> Iterator[int]:
    """A web site with one page; yields its port."""
    (folder / "page.html").write_text("<title>harmless</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def _prefect_alone(folder: Path) -> Iterator[str]:
    """Prefect's server as it comes; yields its API."""
    port, processes = free_port(), Processes(folder / "alone")
    environment = {**own_environment(folder), "PREFECT_HOME": str(folder / "alone")}
    try:
        command = prefect("server", "start", "--host", "127.0.0.1", "--port", str(port))
        processes.start("server", command, environment)
        processes.wait_for("server", f"http://127.0.0.1:{port}/api/health")
        yield f"http://127.0.0.1:{port}/api"
    finally:
        processes.stop()
