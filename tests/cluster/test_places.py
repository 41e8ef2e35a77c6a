"""Places that the machines of a cluster can't share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.places import PlaceError, check_cluster, check_places
from configs.settings import Settings, read_settings

POSTGRES = "postgresql+psycopg://db/distox"


def settings(**values: str) -> Settings:
    return read_settings({"DISTOX_HOME": "/srv/distox", **values})


@pytest.mark.parametrize("addresses", [[], ["10.0.0.1"], ["10.0.0.1", "10.0.0.1"]])
def test_on_one_machine_every_place_will_do(addresses: list[str]) -> None:
    assert check_places(settings(DISTOX_REDIS_URL="unix:///run/redis.sock"), addresses) is None


def test_several_machines_share_neither_a_file_nor_a_socket_and_each_setting_is_named() -> None:
    with pytest.raises(PlaceError) as caught:
        check_places(settings(DISTOX_REDIS_URL="unix:///run/redis.sock"), ["10.0.0.1", "10.0.0.2", "10.0.0.2"])
    message = str(caught.value)
    assert "2 machines" in message
    assert "DISTOX_STORE_URL = sqlite:////srv/distox/store.sqlite: set it to postgresql" in message
    assert "DISTOX_REDIS_URL = unix:///run/redis.sock: set it to redis://" in message


def test_a_folder_may_be_shared_so_it_is_only_said_that_it_must_be() -> None:
    places = settings(DISTOX_STORE_URL=POSTGRES, DISTOX_REDIS_URL="redis://redis:6379/0")
    advice = check_places(places, ["10.0.0.1", "10.0.0.2"])
    assert advice == "DISTOX_STORAGE_URL = /srv/distox/storage must be one shared folder on all 2 machines"
    elsewhere = settings(DISTOX_STORE_URL=POSTGRES, DISTOX_STORAGE_URL="s3://bucket/runs")
    assert check_places(elsewhere, ["10.0.0.1", "10.0.0.2"]) is None


def test_a_stack_of_our_own_is_not_asked() -> None:
    code = (
        "import sys; from cluster.places import check_cluster; from configs.settings import read_settings\n"
        'job = \'{"metadata": {"job_submission_id": "s"}}\'\n'
        "env = {'DISTOX_HOME': '/h', 'DISTOX_STORE_URL': 'sqlite:////h/s', 'DISTOX_STORAGE_URL': '/h/storage',\n"
        "       'RAY_JOB_CONFIG_JSON_ENV_VAR': job, 'RAY_AUTH_TOKEN_PATH': '/h/ray-token'}\n"
        "assert check_cluster(read_settings(env)) is None\n"
        "assert 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert check_cluster(settings()) is None, "outside a Ray job there is no cluster to ask"
