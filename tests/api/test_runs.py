"""Listing, submitting, showing and cancelling runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cluster.runs import State
from tests.api.conftest import Api
from tests.api.specs import EXPORT, export, pipeline

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
YAML = {"Content-Type": "application/yaml"}


def test_pages_hold_every_run_once_whatever_is_submitted_meanwhile(api: Api) -> None:
    made = [api.store.submit(export(), owner="ada").id for _ in range(7)]
    client, seen, cursor = api.as_("ada"), [], None
    while True:
        page = client.get("/v1/runs", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [run["id"] for run in page["runs"]]
        api.store.submit(export(), owner="ada")
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == list(reversed(made))


def test_the_last_page_has_no_cursor_even_when_it_is_full(api: Api) -> None:
    for _ in range(3):
        api.store.submit(export(), owner="ada")
    assert api.as_("ada").get("/v1/runs", params={"limit": 3}).json()["next_cursor"] is None


def test_filters_leave_what_they_say(api: Api) -> None:
    plain = api.store.submit(export(name="Nightly"), owner="ada")
    road = api.store.submit(pipeline(), owner="ada")
    steps = api.store.expand(road.id, pipeline().steps)  # type: ignore[union-attr]
    api.store.enqueue(plain.id)

    def ids(**parameters: str) -> set[str]:
        answer = api.as_("ada").get("/v1/runs", params=parameters)
        assert answer.status_code == 200
        return {run["id"] for run in answer.json()["runs"]}

    step_ids = {step.id for step in steps}
    assert ids() == {plain.id, road.id} | step_ids
    assert ids(state="QUEUED") == {plain.id}
    assert ids(kind="pipeline") == {road.id}
    assert ids(parent=road.id) == step_ids
    assert ids(top_level="true") == {plain.id, road.id}
    assert ids(name="NIGHT") == {plain.id}
    assert ids(name="smaller") == {next(step.id for step in steps if step.step == "smaller")}
    assert ids(name="%") == set()


def test_a_rare_name_is_found_page_by_page_however_many_others_lie_between(api: Api) -> None:
    rare = [api.store.submit(export(name="rare"), owner="ada").id]
    for _ in range(9):
        api.store.submit(export(), owner="ada")
    rare.append(api.store.submit(export(name="a RARE one"), owner="ada").id)
    pages: list[list[str]] = []
    client, cursor = api.as_("ada"), None
    while not pages or cursor is not None:
        parameters = {"name": "rare", "limit": "1", **({"cursor": cursor} if cursor else {})}
        page = client.get("/v1/runs", params=parameters).json()
        pages.append([run["id"] for run in page["runs"]])
        cursor = page["next_cursor"]
    assert pages == [[rare[1]], [rare[0]]]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"limit": "0"}, "query.limit"),
        ({"limit": "201"}, "query.limit"),
        ({"limit": "ten"}, "query.limit"),
        ({"state": "DONE"}, "query.state"),
        ({"kind": "train"}, "query.kind"),
        ({"cursor": "'; DROP TABLE runs"}, "query.cursor"),
        ({"parent": "../x"}, "query.parent"),
        ({"name": ""}, "query.name"),
        ({"name": "a\x00b"}, "query.name"),
        ({"top_level": "perhaps"}, "query.top_level"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value_and_a_remedy(
    api: Api, parameters: dict[str, str], field: str
) -> None:
    answer = api.as_("ada").get("/v1/runs", params=parameters)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (fault,) = answer.json()["faults"]
    assert fault["field"] == field
    assert fault["value"] == next(iter(parameters.values()))
    assert fault["remedy"]


def test_a_spec_is_taken_as_json_and_as_yaml_and_gives_the_same_run(api: Api) -> None:
    client = api.as_("ada")
    as_json = client.post("/v1/runs", json=EXPORT)
    as_yaml = client.post(
        "/v1/runs", content="kind: export\nname: little\nmodel: {name: someone/student}", headers=YAML
    )
    assert (as_json.status_code, as_yaml.status_code) == (201, 201)
    assert as_json.json()["spec"] == as_yaml.json()["spec"]
    assert as_json.json()["spec"]["quantization"] == "int8"
    assert as_json.headers["location"] == f"/v1/runs/{as_json.json()['id']}"
    run = api.store.get(as_json.json()["id"])
    assert (run.owner, run.state, run.name) == ("ada", State.PENDING, "little")


def test_the_quickstart_with_its_anchors_is_taken(api: Api) -> None:
    answer = api.as_("ada").post("/v1/runs", content=QUICKSTART.read_bytes(), headers=YAML)
    assert answer.status_code == 201
    assert answer.json()["kind"] == "pipeline"


def test_the_owner_comes_from_the_key_and_never_from_the_spec(api: Api) -> None:
    answer = api.as_("ada").post("/v1/runs", json={**EXPORT, "owner": "root"})
    assert answer.status_code == 422
    assert answer.json()["faults"][0]["field"] == "owner"


def test_the_same_idempotency_key_gives_the_same_run_for_the_same_owner_only(api: Api) -> None:
    headers = {"Idempotency-Key": "nightly-1"}
    first = api.as_("ada").post("/v1/runs", json=EXPORT, headers=headers)
    again = api.as_("ada").post("/v1/runs", json=EXPORT, headers=headers)
    others = api.as_("bob").post("/v1/runs", json=EXPORT, headers=headers)
    assert (first.status_code, again.status_code, others.status_code) == (201, 200, 201)
    assert first.json()["id"] == again.json()["id"] != others.json()["id"]
    assert first.json()["submission_id"] == "nightly-1"


def test_an_idempotency_key_with_another_spec_is_a_conflict(api: Api) -> None:
    headers = {"Idempotency-Key": "nightly-1"}
    api.as_("ada").post("/v1/runs", json=EXPORT, headers=headers)
    answer = api.as_("ada").post("/v1/runs", json={**EXPORT, "priority": 3}, headers=headers)
    assert answer.status_code == 409
    assert len(api.store.list()) == 1


@pytest.mark.parametrize("key", ["", "with space", "é", "x" * 201])
def test_a_key_that_no_store_could_keep_is_refused(api: Api, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    answer = api.as_("ada").post("/v1/runs", json=EXPORT, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["faults"][0]["field"] == "header.idempotency-key"


def test_a_wrong_spec_gives_one_fault_for_each_thing_that_is_wrong(api: Api) -> None:
    spec = {"kind": "export", "model": {"nam": "x"}, "quantization": "int9", "resources": {"cpus": "2"}}
    answer = api.as_("ada").post("/v1/runs", json=spec)
    assert answer.status_code == 422
    faults = {fault["field"]: fault for fault in answer.json()["faults"]}
    assert set(faults) == {"model.nam", "quantization", "resources.cpus"}
    assert faults["model.nam"]["remedy"].startswith("did you mean name?")
    assert faults["resources.cpus"]["value"] == '"2"'
    assert api.store.list() == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "  \n",
        "[1, 2]",
        "null",
        "kind: [",
        "\x00",
        '{"kind": "export", "kind": "export"}',
        "kind: export\nkind: export",
    ],
)
@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
def test_a_body_that_is_no_spec_is_422_and_never_500(api: Api, body: str, media: str) -> None:
    answer = api.as_("ada").post("/v1/runs", content=body, headers={"Content-Type": media})
    assert answer.status_code == 422
    assert answer.json()["faults"]


def test_nonsense_of_full_size_is_answered_soon_and_briefly(api: Api) -> None:
    keys = ",".join(f'"k{number}": 1' for number in range(50_000))
    began = time.monotonic()
    many = api.as_("ada").post("/v1/runs", content=f'{{"kind": "export", {keys}}}')
    twice = api.as_("ada").post("/v1/runs", content=f'{{"kind": "export", {keys}, "k49999": 1}}')
    # A check that compares each key with each would take minutes.
    assert time.monotonic() - began < 30
    assert len(many.json()["faults"]) == 100
    assert many.json()["detail"] == "the spec has 50,001 faults; the first 100 are listed"
    assert twice.json()["faults"][0]["field"] == "k49999"


def test_a_content_type_that_is_neither_is_415(api: Api) -> None:
    answer = api.as_("ada").post("/v1/runs", content="<kind/>", headers={"Content-Type": "application/xml"})
    assert answer.status_code == 415
    assert "application/yaml" in answer.json()["detail"]


def test_a_body_above_the_limit_is_413_with_and_without_a_length(api: Api) -> None:
    body = json.dumps({**EXPORT, "name": "x" * 1_000_001}).encode()
    client = api.as_("ada")
    assert client.post("/v1/runs", content=body).status_code == 413
    assert client.post("/v1/runs", content=(body[i : i + 65536] for i in range(0, len(body), 65536))).status_code == 413
    assert api.store.list() == []


def test_a_shown_pipeline_has_its_steps_in_the_order_of_the_spec(api: Api) -> None:
    road = api.store.submit(pipeline(), owner="ada")
    api.store.expand(road.id, pipeline().steps)  # type: ignore[union-attr]
    shown = api.as_("ada").get(f"/v1/runs/{road.id}").json()
    assert [child["step"] for child in shown["children"]] == ["data", "smaller"]
    assert shown["state"] == "RUNNING"
    assert {child["parent"] for child in shown["children"]} == {road.id}


def test_a_shown_run_has_its_progress_and_reason(api: Api) -> None:
    run = api.store.submit(export(), owner="ada")
    api.store.enqueue(run.id)
    api.store.explain(run.id, "waits for 2 CPUs")
    assert api.as_("ada").get(f"/v1/runs/{run.id}").json()["reason"] == "waits for 2 CPUs"
    epoch = api.store.begin_attempt(run.id)
    api.store.start(run.id, epoch)
    api.store.heartbeat(run.id, epoch, {"share_done": 0.5, "loss": float("nan")})
    shown = api.as_("ada").get(f"/v1/runs/{run.id}").json()
    assert shown["progress"] == {"share_done": 0.5, "loss": None}


@pytest.mark.parametrize("run_id", ["r-00000000000zzzzzzz", "nonsense", "%00", "r-1'--", "..%2Fkeys", "x" * 5000])
def test_an_unknown_run_is_404_on_every_route(api: Api, run_id: str) -> None:
    client = api.as_("root")
    for rest in ("", "/events", "/metrics", "/table", "/artifacts", "/artifacts/model", "/artifacts/model/config.json"):
        assert client.get(f"/v1/runs/{run_id}{rest}").status_code == 404
    assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 404


def test_cancelling_ends_a_waiting_run_and_twice_is_the_same_as_once(api: Api) -> None:
    run = api.store.submit(export(), owner="ada")
    for _ in range(2):
        answer = api.as_("ada").post(f"/v1/runs/{run.id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")


def test_cancelling_a_working_run_asks_its_attempt_to_stop(api: Api) -> None:
    run = api.store.submit(export(), owner="ada")
    api.store.enqueue(run.id)
    api.store.begin_attempt(run.id)
    body = api.as_("ada").post(f"/v1/runs/{run.id}/cancel").json()
    assert (body["state"], body["cancel_requested"]) == ("STARTING", True)


def test_events_tell_every_change_and_only_what_is_new(api: Api) -> None:
    run = api.store.submit(export(), owner="ada")
    api.store.enqueue(run.id)
    events = api.as_("ada").get(f"/v1/runs/{run.id}/events").json()["events"]
    assert [event["state"] for event in events] == ["PENDING", "QUEUED"]
    newer = api.as_("ada").get(f"/v1/runs/{run.id}/events", params={"after": events[0]["id"]}).json()["events"]
    assert newer == events[1:]
