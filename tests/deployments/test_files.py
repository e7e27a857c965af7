"""The files of deployments/: what can be checked of them without a container engine, a cluster or a system manager."""

import ast
import fnmatch
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
DEPLOYMENTS = PROJECT / "deployments"
TEAM, SYSTEMD = DEPLOYMENTS / "team", DEPLOYMENTS / "systemd"
UNITS = sorted([*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.target")])
INSTALLED = "/opt/unfreeze/"
PROJECT_TOML = tomllib.loads((PROJECT / "pyproject.toml").read_text())
COMMANDS = {command.name for command in entry_points(group="console_scripts")} | {"python"}
SECONDS_TO_CHECKPOINT = next(
    int(ast.literal_eval(statement.value))
    for statement in ast.parse((TEAM / "worker.py").read_text()).body
    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "SECONDS_TO_CHECKPOINT"
)


# --- compose ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((TEAM / "compose.yaml").read_text()))


def test_the_compose_file_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = files(pytest.importorskip("check_jsonschema", reason="pip install check-jsonschema"))
    schema = json.loads((schemas / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate(compose, schema)


def test_services_of_the_compose_file_fit_together(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] != "service_healthy" or "healthcheck" in services[other], (name, other)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if not volume.startswith("$") else "./data"
            known = source in compose["volumes"] if source[0] != "." else source == "./data" or (TEAM / source).exists()
            assert known, (name, volume)
        assert set(service.get("networks", [])) <= set(compose["networks"])
        assert (name == "setup") != (service.get("restart") == "unless-stopped"), name
        for port in service.get("ports", []):
            assert port.startswith("${UNFREEZE_BIND:-127.0.0.1}:"), "open to every network by default"
    used = {name for name, service in services.items() if "storage" in service["networks"]}
    assert used == {"bucket", "mlflow", "setup"}, "nobody else may see the bucket"


def test_containers_have_no_privileges_and_a_read_only_image_of_an_exact_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("cap_add"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert any(place.startswith("/tmp") for place in service["tmpfs"]), name
        assert re.search(r":\$\{\w+:-\d+(\.\d+)+\}$", service["image"]), service["image"]
        words = " ".join(map(str, [*service.get("command", []), *service.get("entrypoint", [])]))
        assert "$" not in words, f"{name}: what is secret belongs in the environment"
    (base,) = [arguments for name, arguments in instructions() if name == "FROM"]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base[0]), base


def test_commands_of_the_compose_file_exist(compose: dict[str, Any]) -> None:
    ours = [service for service in compose["services"].values() if "build" in service]
    assert len(ours) == 6
    for service in ours:
        program, *arguments = service["command"]
        assert program in COMMANDS or os.access(PROJECT / program, os.X_OK), program
        if program == "python":
            assert (PROJECT / arguments[0]).is_file()
        context, dockerfile = service["build"]["context"], service["build"]["dockerfile"]
        assert (TEAM / context).resolve() == PROJECT
        assert (PROJECT / dockerfile).is_file()


def test_each_gpu_has_one_worker_that_can_save_its_checkpoint(compose: dict[str, Any]) -> None:
    workers = {name: each for name, each in compose["services"].items() if each["command"][-1].endswith("worker.py")}
    assert set(workers) == {"gpu-0", "gpu-1", "cpu"}
    for name, worker in workers.items():
        assert int(worker["stop_grace_period"].removesuffix("s")) > SECONDS_TO_CHECKPOINT
        assert worker["hostname"] == name
        assert worker["shm_size"]
        if name != "cpu":
            (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
            assert (device["capabilities"], device["device_ids"]) == (["gpu"], [name.removeprefix("gpu-")])


def test_the_example_of_an_environment_names_what_the_compose_file_asks_for() -> None:
    text, example = (TEAM / "compose.yaml").read_text(), (TEAM / ".env.example").read_text()
    required = set(re.findall(r"\$\{(\w+):\?[^}]+\}", text))
    optional = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    assert set(re.findall(r"\$\{(\w+)", text)) == required | set(optional), "each has a default or a message"
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(required, "")
    assert dict(re.findall(r"^# (\w+)=(.*)$", example, re.MULTILINE)) == optional


# --- image ------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, list[str]]]:
    """Instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^\s*#.*\n", "", (TEAM / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, json.loads(rest) if rest.startswith("[") else shlex.split(rest)) for name, rest in lines]


def test_the_image_copies_files_that_exist_and_are_not_ignored() -> None:
    kept = [line[1:] for line in (TEAM / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for name, arguments in instructions() if name == "COPY" for source in arguments[:-1]]
    assert sorted(kept) == sorted(copied)
    for source in copied:
        assert (PROJECT / source).exists(), source
    included = PROJECT_TOML["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    packages = {path.partition("/")[0] for path in included}
    assert {*packages, "prefect.yaml", PROJECT_TOML["project"]["readme"]} <= set(copied)
    assert all(any(fnmatch.fnmatch(found, each) for found in kept) for each in PROJECT_TOML["project"]["license-files"])


def test_the_image_is_not_run_by_root() -> None:
    users = [arguments for name, arguments in instructions() if name == "USER"]
    assert users[-1][0] not in ("root", "0")
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    (command,) = [arguments for name, arguments in instructions() if name == "CMD"]
    assert command[0] in PROJECT_TOML["project"]["scripts"]


def test_the_image_brings_what_its_three_roles_need() -> None:
    (install,) = [words for name, words in instructions() if name == "RUN" and "pyproject.toml" in words]
    extras = {install[place + 1] for place, word in enumerate(install) if word == "--extra"}
    assert {"server", "postgresql"} <= extras <= set(PROJECT_TOML["project"]["optional-dependencies"]) - {"dev"}


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return dict(json.loads((DEPLOYMENTS / "kubernetes" / "job-template.json").read_text()))


def rendered(template: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The manifest as Prefect's Kubernetes worker makes it from the template."""
    from prefect.utilities.templating import apply_values

    known = template["variables"]["properties"].items()
    values = {
        **{name: variable["default"] for name, variable in known if "default" in variable},
        # What the worker fills in itself.
        "name": "swift-otter",
        "labels": {"prefect.io/flow-run-name": "swift-otter"},
        "command": ["prefect", "flow-run", "execute"],
        "env": [{"name": "PREFECT_API_URL", "value": "http://a/api"}],
        **values,
    }
    return dict(apply_values(template["job_configuration"]["job_manifest"], values))


def test_the_job_of_the_template_fits_the_schema_of_kubernetes(template: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    versions = kubernetes_validate.utils.all_versions()
    for version in (versions[0], versions[-1]):
        kubernetes_validate.validate(rendered(template), version, strict=True)
        changed = rendered(template, gpus=0, node_selector={"gpu": "l4"}, cpu="500m")
        kubernetes_validate.validate(changed, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(rendered(template, finished_job_ttl="a day"), versions[-1], strict=True)


def test_the_job_asks_for_a_gpu_and_takes_its_secrets_from_a_secret(template: dict[str, Any]) -> None:
    pod = rendered(template)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["envFrom"] == [{"secretRef": {"name": "unfreeze"}}]
    assert pod["terminationGracePeriodSeconds"] > SECONDS_TO_CHECKPOINT
    (user,) = [words for name, words in instructions() if name == "RUN" and "useradd" in words]
    assert pod["securityContext"]["runAsUser"] == int(user[user.index("--uid") + 1])


def test_every_variable_of_the_template_is_described_and_used(template: dict[str, Any]) -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    for name, variable in template["variables"]["properties"].items():
        assert variable["title"], name
        assert variable["description"], name


def test_the_pods_of_the_ray_job_fit_the_schema_of_kubernetes_and_share_the_folders_of_the_template(
    template: dict[str, Any],
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    job = yaml.safe_load((DEPLOYMENTS / "kubernetes" / "rayjob.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, kubernetes_validate.utils.all_versions()[-1], strict=True)
        (container,) = pod["spec"]["containers"]
        (wanted,) = rendered(template)["spec"]["template"]["spec"]["containers"]
        for same in ("volumeMounts", "envFrom", "securityContext"):
            assert container[same] == wanted[same]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_command_of_the_ray_job_is_one_of_ours() -> None:
    from unfreeze.flows.cli import app

    job = yaml.safe_load((DEPLOYMENTS / "kubernetes" / "rayjob.yaml").read_text())
    program, *arguments = job["spec"]["entrypoint"].split()
    assert program == "unfreeze"
    command, _, ignored = app.parse_args(arguments)
    assert command.__name__ == "predict"
    assert not ignored


# --- systemd ----------------------------------------------------------------------------------------------------------


def parsed(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit: values by key."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in unit.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(match[1], defaultdict(list))
            continue
        key, separator, value = line.partition("=")
        assert separator, line
        assert re.fullmatch(r"[A-Z][A-Za-z]+", key), line
        section[key].append(value)
    return sections


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_well_formed_and_what_it_names_exists(unit: Path) -> None:
    sections = parsed(unit)
    assert list(sections) == ["Unit", *(["Service"] if unit.suffix == ".service" else []), "Install"]
    others = {each.name for each in UNITS} | {"network-online.target", "multi-user.target", "postgresql.service"}
    for key in ("After", "Wants", "PartOf", "WantedBy"):
        for name in " ".join(sections["Unit"][key] + sections["Install"][key]).split():
            assert re.sub(r"@\w+", "@", name) in others, name
    for path in sections["Unit"]["Documentation"]:
        assert (PROJECT / path.removeprefix(f"file://{INSTALLED}")).is_file()
    if unit.suffix != ".service":
        return
    service = sections["Service"]
    program, *arguments = service["ExecStart"][0].split()
    assert program.startswith(INSTALLED)
    program = program.removeprefix(INSTALLED)
    assert program.removeprefix(".venv/bin/") in COMMANDS or os.access(PROJECT / program, os.X_OK)
    for argument in arguments:
        assert not argument.startswith("deployments/") or (PROJECT / argument).is_file()
    user = "unfreeze-" + unit.stem.removeprefix("unfreeze-").rstrip("@")
    assert service["User"] == service["Group"] == [user], "each unit has a user of its own"
    for hardening in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectProc=invisible", "PrivateTmp=yes"):
        key, value = hardening.split("=")
        assert service[key] == [value], hardening
    assert service["CapabilityBoundingSet"] == [""]
    assert service["StateDirectoryMode"] == ["0700"]
    written = re.findall(r"/var/lib/([\w-]+)", " ".join(service["Environment"]))
    assert set(written) <= set(service["StateDirectory"]), "nothing else can be written"
    assert service["Restart"] == ["always"]
    assert all(path.startswith("/etc/unfreeze/") for path in service["EnvironmentFile"])


def test_a_worker_that_is_stopped_may_save_its_checkpoint() -> None:
    service = parsed(SYSTEMD / "unfreeze-worker@.service")["Service"]
    assert int(service["TimeoutStopSec"][0]) > SECONDS_TO_CHECKPOINT
    # Only worker.py may get the signal: a worker that gets it kills its flow runs on the spot.
    assert service["KillMode"] == ["mixed"]
    assert service["ExecStart"][0].split()[1].endswith("worker.py")


def test_the_examples_of_environments_name_what_the_scripts_ask_for() -> None:
    def names(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))

    prefect, mlflow, clients = (names(SYSTEMD / f"{name}.example") for name in ("prefect", "mlflow", "environment"))
    asked = set(re.findall(r"\$\{(\w+):\?", (TEAM / "mlflow.sh").read_text()))
    assert asked <= set(mlflow)
    set_up = set(re.findall(r'setting\["(\w+)"\]', (TEAM / "set_up.py").read_text()))
    assert set_up <= set(mlflow) | set(clients)
    assert not set(prefect) & set(mlflow), "neither server sees what the other needs"
    assert not (set(prefect) | set(mlflow)) & set(clients), "workers must not see what the servers need"


def test_the_system_manager_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS:
        text = unit.read_text().replace(f"{INSTALLED}.venv/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text.replace(INSTALLED, f"{PROJECT}/").replace("/opt/unfreeze", str(PROJECT)))
    one = tmp_path / "unfreeze-worker@0.service"
    one.write_text((tmp_path / "unfreeze-worker@.service").read_text())
    checked = [str(path) for path in tmp_path.iterdir() if "@." not in path.name]
    # It would otherwise look at the units of this machine as well.
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *checked], capture_output=True, text=True, env=environment
    )
    ours = [line for line in done.stderr.splitlines() if "unfreeze" in line or str(tmp_path) in line]
    assert not ours, done.stderr


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(TEAM.glob("*.sh")), ids=lambda script: script.name)
def test_a_script_is_executable_and_can_be_read_by_the_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)
    assert "set -eu" in script.read_text()


def test_no_file_holds_a_secret() -> None:
    paths = [path for path in DEPLOYMENTS.rglob("*") if path.is_file() and path.name != ".env"]
    paths = [path for path in paths if "__pycache__" not in path.parts and "data" not in path.parts]
    assert len(paths) > 15
    named = re.compile(r"""(?:PASSWORD|SECRET_KEY|ACCESS_KEY|AUTH_STRING|TOKEN)["']?[:=][ \t]*["']?([^\s"']+)""")
    in_address = re.compile(r"://[^\s/:@]+:([^\s/@]+)@")
    for path in [*paths, PROJECT / "docs" / "howto" / "team-server.md", PROJECT / "prefect.yaml"]:
        for value in [*named.findall(path.read_text()), *in_address.findall(path.read_text())]:
            assert value.startswith(("$", "?set", "PASSWORD", "...", "team:...", "setting[", "true")), (
                f"{path}: {value}"
            )


def test_the_guide_shows_a_pull_step_that_prefect_knows_and_files_that_exist() -> None:
    from prefect.deployments.steps.pull import git_clone

    text = (PROJECT / "docs" / "howto" / "team-server.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ((step, settings),) = yaml.safe_load(block)["pull"][0].items()
    assert step == "prefect.deployments.steps.git_clone"
    assert set(settings) <= set(inspect.signature(git_clone).parameters)
    for path in re.findall(r"\bdeployments/[\w./-]+\w", text):
        assert path.endswith("/.env") or (PROJECT / path).exists(), path
