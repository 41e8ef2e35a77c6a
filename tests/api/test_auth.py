"""Keys, roles and owners: who gets what answer on every route."""

from __future__ import annotations

import pytest

from api.app import create_app
from api.limits import MAX_CALLERS, Limits, RateLimiter
from api.roles import Role
from cluster.store import Store
from tests.api.conftest import Api
from tests.api.specs import EXPORT, evaluate

ROUTES = {
    "list": ("GET", "/v1/runs"),
    "submit": ("POST", "/v1/runs"),
    "show": ("GET", "/v1/runs/{run}"),
    "cancel": ("POST", "/v1/runs/{run}/cancel"),
    "events": ("GET", "/v1/runs/{run}/events"),
    "metrics": ("GET", "/v1/runs/{run}/metrics"),
    "table": ("GET", "/v1/runs/{run}/table"),
    "artifacts": ("GET", "/v1/runs/{run}/artifacts"),
    "artifact": ("GET", "/v1/runs/{run}/artifacts/table"),
    "file": ("GET", "/v1/runs/{run}/artifacts/scores/scores.json"),
}
"""Every route but /v1/health, asked about a finished evaluation of ada's."""

STATUSES = {
    #                none ada  viewer bob root
    "list": (401, 200, 200, 200, 200),
    "submit": (401, 201, 403, 201, 201),
    "show": (401, 200, 200, 404, 200),
    # The run has SUCCEEDED: whoever may cancel it is told so.
    "cancel": (401, 409, 403, 404, 409),
    "events": (401, 200, 200, 404, 200),
    "metrics": (401, 200, 200, 404, 200),
    "table": (401, 200, 200, 404, 200),
    "artifacts": (401, 200, 200, 404, 200),
    "artifact": (401, 200, 200, 404, 200),
    "file": (401, 200, 200, 404, 200),
}
CALLERS = (None, "ada", "ada_viewer", "bob", "root")


def finished_evaluation(api: Api) -> str:
    run = api.finish(evaluate(), artifacts={"scores": "scores", "table": "table.md"})
    output = api.output(run)
    (output / "scores").mkdir()
    (output / "scores" / "scores.json").write_text("{}", "utf-8")
    (output / "table.md").write_text("| a |", "utf-8")
    return run.id


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_each_role_and_owner_as_the_table_says(api: Api, route: str) -> None:
    run_id = finished_evaluation(api)
    method, path = ROUTES[route]
    found = []
    for who in CALLERS:
        body = EXPORT if route == "submit" else None
        found.append(api.as_(who).request(method, path.format(run=run_id), json=body).status_code)
    assert tuple(found) == STATUSES[route]


def test_the_table_of_roles_knows_every_route(api: Api) -> None:
    declared = {
        (method, path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
        if path != "/v1/health"
    }
    shapes = {
        "/v1/runs/{run}/artifacts/table": "/v1/runs/{run_id}/artifacts/{name}",
        "/v1/runs/{run}/artifacts/scores/scores.json": "/v1/runs/{run_id}/artifacts/{name}/{path}",
    }
    asked = {(method.lower(), shapes.get(path, path.replace("{run}", "{run_id}"))) for method, path in ROUTES.values()}
    assert asked == declared


def test_a_run_of_another_owner_is_answered_like_one_that_does_not_exist(api: Api) -> None:
    run_id = finished_evaluation(api)
    missing = "r-00000000000zzzzzzz"
    theirs = api.as_("bob").get(f"/v1/runs/{run_id}").json()
    nobodys = api.as_("bob").get(f"/v1/runs/{missing}").json()
    for body, name in ((theirs, run_id), (nobodys, missing)):
        body["detail"] = body["detail"].replace(name, "ID")
        del body["request_id"]
    assert theirs == nobodys


def test_a_list_holds_only_the_callers_runs_and_an_admin_sees_all(api: Api) -> None:
    mine = api.store.submit(evaluate(), owner="ada").id
    theirs = api.store.submit(evaluate(), owner="bob").id
    seen = {who: [run["id"] for run in api.as_(who).get("/v1/runs").json()["runs"]] for who in ("ada", "bob", "root")}
    assert seen == {"ada": [mine], "bob": [theirs], "root": [theirs, mine]}


def test_only_an_admin_may_filter_by_another_owner(api: Api) -> None:
    theirs = api.store.submit(evaluate(), owner="bob").id
    assert api.as_("ada").get("/v1/runs", params={"owner": "bob"}).status_code == 403
    assert api.as_("ada").get("/v1/runs", params={"owner": "ada"}).json()["runs"] == []
    assert [run["id"] for run in api.as_("root").get("/v1/runs", params={"owner": "bob"}).json()["runs"]] == [theirs]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer nonsense", "Bearer dx_12345678_wrong", "Basic YTpi", "Bearer dx_\udcff_x"],
)
def test_anything_but_a_known_key_is_401_and_says_how_to_send_one(api: Api, header: str) -> None:
    encoded = header.encode("utf-8", "surrogateescape")
    answer = api.as_(None).get("/v1/runs", headers=[(b"authorization", encoded)])
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:distox:problem:unauthenticated"


def test_a_revoked_key_is_401_at_once(api: Api) -> None:
    client = api.as_("ada")
    assert client.get("/v1/runs").status_code == 200
    api.store.revoke_key(api.keys["ada"].split("_")[1])
    assert client.get("/v1/runs").status_code == 401


def test_a_problem_never_repeats_the_key(api: Api) -> None:
    key = "dx_12345678_averysecretvalue"
    answer = api.as_(None).get("/v1/runs", headers={"Authorization": f"Bearer {key}"})
    assert "averysecret" not in answer.text


def test_a_key_that_asks_too_often_is_429_and_is_told_when_to_come_again(api: Api) -> None:
    app = create_app(api.store, roots=api.app.state.roots, limits=Limits(requests_per_minute=3))
    client = Api(app, api.store, api.keys, api.home).as_("ada")
    assert [client.get("/v1/runs").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.get("/v1/runs")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert Api(app, api.store, api.keys, api.home).as_("bob").get("/v1/runs").status_code == 200


def test_bad_keys_are_slowed_and_lock_no_good_key_out(api: Api) -> None:
    app = create_app(api.store, roots=api.app.state.roots, limits=Limits(failures_per_minute=2))
    limited = Api(app, api.store, api.keys, api.home)
    assert [limited.as_(None).get("/v1/runs").status_code for _ in range(3)] == [401, 401, 429]
    assert limited.as_("ada").get("/v1/runs").status_code == 200


def test_a_bucket_refills_with_time_and_forgets_the_callers_seen_longest_ago() -> None:
    now = [0.0]
    limiter = RateLimiter(60, clock=lambda: now[0])
    assert [limiter.take("a") for _ in range(60)] == [0.0] * 60
    assert limiter.take("a") == pytest.approx(1.0)
    now[0] = 1.0
    assert limiter.take("a") == 0.0
    for number in range(MAX_CALLERS):
        limiter.take(str(number))
    assert limiter.take("a") == 0.0


def test_health_needs_no_key(api: Api) -> None:
    answer = api.as_(None).get("/v1/health")
    assert answer.status_code == 200
    assert answer.json()["store"] == "ok"


def test_health_says_when_the_store_is_gone(api: Api, store: Store) -> None:
    with store._database.write() as connection:  # a store that lost its tables answers nothing
        connection.exec_driver_sql("ALTER TABLE runs RENAME TO lost")
    answer = api.as_(None).get("/v1/health")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"


def test_a_key_with_a_role_that_this_version_does_not_know_opens_nothing(api: Api) -> None:
    assert "owner" not in list(Role)
    key = api.store.create_key("eve", "owner", "from another version")
    assert api.as_(None).get("/v1/runs", headers={"Authorization": f"Bearer {key}"}).status_code == 401
