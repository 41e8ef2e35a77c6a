"""Settings: what the environment says, what is refused inside a Ray job, and how short the folder of sockets is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from configs.settings import MAX_RUNTIME_BYTES, Settings, SettingsError, read_settings

IN_A_JOB = {
    "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}),
    "DISTOX_HOME": "/srv/distox",
    "DISTOX_STORE_URL": "sqlite:////srv/distox/store.sqlite",
    "DISTOX_STORAGE_URL": "/srv/distox/storage",
}


def test_an_empty_environment_means_a_home_here_and_services_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings({})
    assert settings.home == tmp_path / ".distox"
    assert settings.storage_url == str(tmp_path / ".distox" / "storage")
    assert settings.default_store_url == f"sqlite:///{tmp_path}/.distox/store.sqlite"
    assert (settings.redis_url, settings.ray_address, settings.store_url, settings.api_key) == (None, None, None, None)
    assert (settings.api_host, settings.api_port, settings.ray_submission_id) == ("127.0.0.1", 0, None)


def test_each_variable_is_read_into_its_field() -> None:
    settings = read_settings(
        {
            "DISTOX_HOME": "/srv/a",
            "DISTOX_REDIS_URL": "rediss://u:p@host/0",
            "RAY_ADDRESS": "http://ray:8265",
            "RAY_AUTH_TOKEN_PATH": "/run/ray-token",
            "DISTOX_STORE_URL": "postgresql+psycopg://db/distox",
            "DISTOX_STORAGE_URL": "s3://bucket/runs",
            "DISTOX_API_URL": "http://api",
            "DISTOX_API_HOST": "0.0.0.0",
            "DISTOX_API_PORT": "8000",
            "DISTOX_API_KEY": "k",
            "DISTOX_STORE_ID": "s",
        }
    )
    assert settings == Settings(
        home=Path("/srv/a"),
        redis_url="rediss://u:p@host/0",
        ray_address="http://ray:8265",
        ray_token_path="/run/ray-token",
        store_url="postgresql+psycopg://db/distox",
        storage_url="s3://bucket/runs",
        api_url="http://api",
        api_host="0.0.0.0",
        api_port=8000,
        api_key="k",
        store_id="s",
        ray_submission_id=None,
    )


def test_local_places_are_made_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(
        {"DISTOX_HOME": "a/../b", "DISTOX_STORAGE_URL": "files", "DISTOX_STORE_URL": "sqlite:///x.sqlite"}
    )
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "b"
    assert settings.storage_url == str(tmp_path / "files")
    assert settings.store_url == f"sqlite:///{tmp_path}/x.sqlite"


def test_a_store_in_memory_has_no_place() -> None:
    assert read_settings({"DISTOX_STORE_URL": "sqlite:///:memory:"}).store_url == "sqlite:///:memory:"


def test_a_home_reached_by_a_link_is_the_same_home(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    by_link, straight = (read_settings({"DISTOX_HOME": str(tmp_path / name)}) for name in ("link", "real"))
    assert by_link == straight
    assert by_link.runtime_folder == straight.runtime_folder


def test_a_tilde_is_the_users_folder() -> None:
    assert read_settings({"DISTOX_HOME": "~/x"}).home == Path("~/x").expanduser()


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    names = [name for name in IN_A_JOB if name.startswith("DISTOX")]
    assert read_settings(dict.fromkeys([*names, "RAY_ADDRESS", "DISTOX_API_PORT"], "")) == read_settings({})


@pytest.mark.parametrize("port", ["x", "-1", "65536", "8000.0", "²", " 80"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="DISTOX_API_PORT"):
        read_settings({"DISTOX_API_PORT": port})


def test_inside_a_ray_job_the_submission_id_is_known() -> None:
    assert read_settings(IN_A_JOB).ray_submission_id == "raysubmit_1"


@pytest.mark.parametrize("config", ["", "{}", '{"metadata": null}', '{"metadata": {"job_submission_id": ""}}'])
def test_a_driver_that_was_not_submitted_is_in_no_ray_job(config: str) -> None:
    assert read_settings({"RAY_JOB_CONFIG_JSON_ENV_VAR": config}).ray_submission_id is None


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_job_config_that_ray_did_not_write_is_refused(config: str) -> None:
    with pytest.raises(SettingsError, match="RAY_JOB_CONFIG_JSON_ENV_VAR"):
        read_settings({"RAY_JOB_CONFIG_JSON_ENV_VAR": config})


@pytest.mark.parametrize("name", ["DISTOX_HOME", "DISTOX_STORE_URL", "DISTOX_STORAGE_URL"])
def test_inside_a_ray_job_a_default_is_refused_by_name(name: str) -> None:
    environment = {key: value for key, value in IN_A_JOB.items() if key != name}
    with pytest.raises(SettingsError, match=f"^{name} not set inside a Ray job; start the cluster"):
        read_settings(environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DISTOX_HOME", "home"), ("DISTOX_STORE_URL", "sqlite:///a.sqlite"), ("DISTOX_STORAGE_URL", "./files")],
)
def test_inside_a_ray_job_a_relative_place_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value}: relative"):
        read_settings({**IN_A_JOB, name: value})


def test_the_folder_of_sockets_is_short_for_a_home_of_any_length(tmp_path: Path) -> None:
    settings = read_settings({"DISTOX_HOME": str(tmp_path / ("x" * 200) / ("y" * 200))})
    assert len(str(settings.runtime_folder)) <= MAX_RUNTIME_BYTES


def test_the_folder_of_sockets_is_short_where_temporary_files_lie_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert len(str(read_settings({}).runtime_folder)) <= MAX_RUNTIME_BYTES


def test_two_homes_have_two_folders_of_sockets() -> None:
    one, other = (read_settings({"DISTOX_HOME": home}).runtime_folder for home in ("/srv/a", "/srv/b"))
    assert one != other


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_settings({}).api_port = 1  # type: ignore[misc]
