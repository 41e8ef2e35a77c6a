"""The Python client against the real application behind a socket."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from api.client import ApiError, ApiUnreachable, Client
from cluster.store import Point
from jobs.context import Summary
from tests.api.conftest import Api
from tests.api.specs import EXPORT, evaluate, export


@pytest.fixture
def client(api: Api, url: str) -> Client:
    return Client(url, api.keys["ada"])


def test_each_method_gives_what_its_route_says(api: Api, client: Client, tmp_path: Path) -> None:
    assert client.health().store == "ok"
    run = client.submit(EXPORT, idempotency_key="k")
    assert client.submit(EXPORT, idempotency_key="k").id == run.id
    assert client.submit("kind: export\nmodel: {name: someone/student}").kind == "export"
    assert client.run(run.id).spec["quantization"] == "int8"
    assert client.cancel(run.id).state == "CANCELLED"
    assert [event.state for event in client.events(run.id).events] == ["PENDING", "CANCELLED"]
    scored = api.finish(evaluate(), summaries=(Summary("joint", 0.5, "copy"),), points=(Point("loss", 1, 2.0),))
    assert client.metrics(scored.id, name="loss").series[0].points[0].value == 2.0
    assert client.table(scored.id).rows[0].cells["joint"].value == 0.5
    client.close()


def test_runs_come_over_as_many_pages_as_it_takes(api: Api, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [api.store.submit(export(), owner="ada").id for _ in range(5)]
    sizes: list[int] = []
    page = client.page

    def counted(*, limit: int, **values: object) -> object:
        sizes.append(limit)
        return page(limit=min(limit, 2), **values)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "page", counted)
    assert [run.id for run in client.runs(limit=4, kind="export")] == list(reversed(made))[:4]
    assert sizes == [4, 2]
    client.close()


def test_a_refusal_carries_status_detail_faults_and_request_id(client: Client) -> None:
    with pytest.raises(ApiError) as raised:
        client.submit({"kind": "export", "model": {"nam": "x"}})
    assert raised.value.status == 422
    assert raised.value.faults[0].field == "model.nam"
    assert raised.value.request_id
    with pytest.raises(ApiError) as missing:
        client.run("r-1/../../etc")
    assert missing.value.status == 404
    client.close()


def test_a_download_is_there_whole_or_not_at_all(api: Api, client: Client, tmp_path: Path) -> None:
    run = api.finish(export(), artifacts={"model": "model", "rows": "rows.csv"})
    (api.output(run) / "model").mkdir()
    (api.output(run) / "model" / "a b#?.bin").write_bytes(b"x" * 100_000)
    (api.output(run) / "rows.csv").write_text("text", "utf-8")
    target = tmp_path / "here"
    target.mkdir()
    assert client.download(run.id, "model", "a b#?.bin", target / "weights") == 100_000
    assert client.download(run.id, "rows", "", target / "rows.csv") == 4
    with pytest.raises(ApiError):
        client.download(run.id, "model", "missing", target / "missing")
    assert sorted(file.name for file in target.iterdir()) == ["rows.csv", "weights"]
    client.close()


def test_a_download_that_breaks_off_leaves_nothing_and_the_old_file(tmp_path: Path) -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def] # noqa: ANN204
            yield b"half"
            raise httpx.ReadError("gone")

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Broken()))
    (tmp_path / "file").write_text("old", "utf-8")
    with Client("http://api", "k", transport=transport) as client, pytest.raises(ApiUnreachable):
        client.download("r-1", "model", "file", tmp_path / "file")
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("file", "old")]


def test_no_api_at_the_address_is_said_without_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", "dx_a_secret") as client, pytest.raises(ApiUnreachable) as raised:
        client.health()
    assert f"http://127.0.0.1:{port}" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://x", "http://[::1"])
def test_an_address_that_is_none_is_unreachable_and_no_crash(url: str) -> None:
    with pytest.raises(ApiUnreachable), Client(url, "k") as client:
        client.health()


@pytest.mark.parametrize("status", [200, 404, 502])
def test_something_else_that_answers_there_is_an_error_with_a_hint(status: int) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, html="<h1>A proxy's page</h1>"))
    with Client("http://api", "k", transport=transport) as client, pytest.raises(ApiError) as raised:
        client.run("r-1")
    assert "proxy" in str(raised.value) or "DISTOX_API_URL" in str(raised.value)


def test_the_key_does_not_follow_a_redirect() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere/v1/runs"})

    with Client("http://api", "k", transport=httpx.MockTransport(answer)) as client, pytest.raises(ApiError):
        client.page()
    assert asked == ["api"]


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Client(url, api.keys["ada"]) as client:
        assert client.health().status == "ok"
