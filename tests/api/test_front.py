"""What happens to every request and every failure: request ids, headers, problems that tell nothing of the inside."""

from __future__ import annotations

import logging

import pytest

from api.errors import PROBLEMS, TYPE_PREFIX, Problem
from cluster.store import Store
from tests.api.conftest import Api
from tests.api.specs import EXPORT


def test_every_answer_has_a_request_id_and_headers_that_keep_browsers_harmless(api: Api) -> None:
    for path in ("/v1/health", "/v1/runs", "/nowhere", "/docs"):
        answer = api.as_(None).get(path)
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_harmless_request_id_of_the_caller_is_kept_and_another_is_replaced(api: Api) -> None:
    client = api.as_(None)
    kept = client.get("/v1/runs", headers={"X-Request-ID": "trace-1.2"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "trace-1.2"
    for bad in ("a b", "x" * 65, "a\tERROR forged", ""):
        assert client.get("/v1/runs", headers={"X-Request-ID": bad}).headers["x-request-id"] != bad


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v2/runs", 404), ("GET", "/v1/runs/", 404), ("DELETE", "/v1/runs", 405)],
)
def test_paths_and_methods_that_are_unknown_are_problems_too(api: Api, method: str, path: str, status: int) -> None:
    answer = api.as_("root").request(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_error_of_ours_is_500_that_names_only_the_request_and_is_logged_under_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **values: object) -> None:
        raise RuntimeError("secret detail /srv/home")

    monkeypatch.setattr(Store, "list", fail)
    with caplog.at_level(logging.ERROR):
        answer = api.as_("ada").get("/v1/runs")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text


def test_a_store_that_is_away_is_503_without_its_place(api: Api, store: Store) -> None:
    with store._database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE runs RENAME TO lost")
    for answer in (api.as_("ada").get("/v1/runs"), api.as_("ada").post("/v1/runs", json=EXPORT)):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert str(api.home) not in answer.text
        assert "sqlite" not in answer.text.lower()


@pytest.mark.parametrize("length", ["-1", "many", "1_000"])
def test_a_length_that_is_no_length_is_refused(api: Api, length: str) -> None:
    answer = api.as_("ada").request("POST", "/v1/runs", headers={"Content-Length": length}, content=b"{}")
    assert answer.status_code == 413


def test_the_table_of_problems_is_whole_and_its_statuses_differ() -> None:
    assert set(PROBLEMS) == set(Problem)
    statuses = [status for status, _ in PROBLEMS.values()]
    assert len(set(statuses)) == len(statuses)
    assert TYPE_PREFIX.startswith("urn:")
