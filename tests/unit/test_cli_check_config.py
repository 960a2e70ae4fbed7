"""`ray-tracking check-config`, as an operator meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ray_tracking import cli
from ray_tracking.errors import StartError
from ray_tracking.settings import environment

pytestmark = pytest.mark.filterwarnings(
    # Ray's own, when ray.serve.schema is imported.
    "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
)

SERVE = """\
proxy_location: Disabled
applications:
  - name: tracking
    import_path: ray_tracking.app:build
    args: {burst_capacity: 7}
"""


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):  # noqa: TID251  the tests must not depend on it
        if name.startswith(environment.PREFIX) or name in environment.PLAIN_NAMES.values():
            monkeypatch.delenv(name)


def check(*args: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.main, ["check-config", *map(str, args)], env=env)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_the_table_shows_every_value_and_where_it_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path, "preset: high_volume\nburst_capacity: 7\n")
    result = check(path, env={"TRACKING_PORT": "9000"})
    lines = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line}

    assert result.exit_code == 0
    assert lines["port"] == ["9000", "environment"]
    assert lines["burst_capacity"] == ["7", "file"]
    assert lines["max_batch_size"] == ["5000", "preset"]
    assert lines["spool"] == ["on", "default"]
    assert lines["database_url"] == ["-", "default"]


def test_json_says_the_same_and_shows_no_secret() -> None:
    result = check("--json", env={"DATABASE_URL": "postgresql://u:s3cret@db/x"})
    settings = json.loads(result.stdout)["settings"]

    assert settings["database_url"] == {
        "value": "postgresql://u:***@db/x",
        "source": "environment",
    }
    assert "s3cret" not in result.output


def test_it_says_where_a_relative_data_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    relative = check(env={"TRACKING_DATA_DIR": "mine"}).output
    assert f"The data directory is {tmp_path}/mine." in relative
    assert "/home/me/mine" in relative
    assert "the nodes' environment" in relative
    assert "data_dir is relative" not in check(env={"TRACKING_DATA_DIR": "/srv/x"}).output


def test_a_serve_file_gives_the_args_of_our_application(tmp_path: Path) -> None:
    other = "  - {name: other, route_prefix: /x, import_path: 'a:b', args: {port: 1}}\n"
    result = check("--json", write(tmp_path, SERVE + other))

    settings = json.loads(result.stdout)["settings"]
    assert settings["burst_capacity"] == {"value": 7, "source": "file"}
    assert settings["port"]["source"] == "default"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot: 1", "prot: unknown setting; did you mean port?"),
        ("port: 0", "port: 0 is not possible"),
        ("port: 1\nport: 2", "line 2: port is given twice"),
        ("- 1", "must be a mapping"),
        ("geo_database: /nope.mmdb", "geo_database: /nope.mmdb: No such file or directory"),
        ("geo_database: /etc/passwd", "geo_database: /etc/passwd: not a MaxMind database"),
        ("validation_rules: ['no_such.rules:rule']", "validation_rules: 'no_such.rules:rule'"),
        ("a: [", "is not YAML: line"),
        ("host: 0.0.0.0", "host: '0.0.0.0' is not possible without api_keys"),
        (SERVE.replace("applications", "aplications"), "aplications: unknown key; did you mean"),
        (SERVE.replace("args", "arguments"), "applications[0].arguments: unknown key"),
        (SERVE.replace("burst_capacity", "burst"), "burst: unknown setting"),
        (SERVE.replace("app:build", "application:build"), "must hold one with import_path"),
        (SERVE + "    deployments: [{name: Ingres}]\n", "did you mean Ingress?"),
        (
            SERVE + "    deployments: [{name: Supervisor, user_config: {burst_capacity: 0}}]\n",
            "user_config: burst_capacity: 0 is not possible",
        ),
        (
            SERVE + "    deployments: [{name: Ingress, user_config: {burst_capacity: 9}}]\n",
            "user_config of Ingress: belongs to Supervisor",
        ),
        (
            SERVE + "    deployments: [{name: Ingress, autoscaling_config: {minimum: 1}}]\n",
            "applications[0].deployments[0].autoscaling_config.minimum: unknown key",
        ),
        (SERVE + "http_options: {prt: 1}\n", "http_options.prt: unknown key; did you mean port?"),
        (SERVE + "http_options: {port: x}\n", "http_options.port: "),
        (SERVE + "applications: []\n", "applications is given twice"),
        (SERVE.replace("Disabled", "HeadOnly"), "proxy_location: must be Disabled"),
        (SERVE.replace("burst_capacity: 7", "listener: serve"), "proxy_location: Disabled is not"),
        (
            SERVE.replace("burst_capacity: 7", "listener: serve").replace("Disabled", "HeadOnly")
            + "http_options: {port: 9}\n",
            "must be the same as host and port",
        ),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr_and_exit_code_2(
    tmp_path: Path, text: str, named: str
) -> None:
    result = check(write(tmp_path, text))

    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr


def test_a_file_that_is_not_yaml_does_not_show_its_text(tmp_path: Path) -> None:
    result = check(write(tmp_path, "database_url: 'postgresql://u:s3cret@db/x\nport: 'x"))

    assert result.exit_code == 2
    assert "s3cret" not in result.stderr


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.local.yaml"])
def test_a_file_for_the_cluster_launcher_is_called_that(name: str) -> None:
    """Not a list of each of its keys."""
    path = Path(__file__).parents[2] / name
    result = check(path)

    assert (result.exit_code, result.stderr) == (
        2,
        f"ray-tracking: {path}: this is a file for Ray's cluster launcher, not a Serve config\n",
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = check(tmp_path / "none.yaml")

    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file" in result.stderr


@pytest.mark.parametrize(
    ("error", "exit_code", "stderr"),
    [(StartError("no\ndisk"), 2, "ray-tracking: no disk\n"), (KeyboardInterrupt(), 130, "")],
)
def test_any_command_fails_in_one_line_and_stops_quietly(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int, stderr: str
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    def import_module(name: str) -> Any:
        return type("module", (), {"command": broken})

    monkeypatch.setattr(cli, "import_module", import_module)
    result = check()

    assert (result.exit_code, result.stderr) == (exit_code, stderr)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_that_is_listed_exists(name: str) -> None:
    assert CliRunner().invoke(cli.main, [name, "--help"]).exit_code == 0
    assert name in CliRunner().invoke(cli.main, ["--help"]).output


def test_help_imports_neither_ray_nor_any_command() -> None:
    code = (
        "import sys; from ray_tracking.cli import main; main(['--help'], standalone_mode=False);"
        "sys.exit(bool({'ray', 'pydantic', 'ray_tracking.settings'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert result.returncode == 0
