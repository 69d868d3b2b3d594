"""What starts a night: the units by systemd's own verifier, the manifest by Kubernetes' own schema, one rule for all.

The schema is that of Kubernetes 1.37 (Apache-2.0), without its words and without what no manifest here has.
"""

import json
import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from engine.ledger.address import PostgresAddress, address_of
from engine.model.errors import Exit

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMA = json.loads(Path(__file__).with_name("kubernetes.schema.json").read_text())
LATER = {Exit.STOPPED_EARLY, Exit.LOCKED}
"""Codes after which a scheduler tries again by itself."""
A_PERSON = set(Exit) - LATER - {Exit.ALL_CREATED}
"""Codes after which it must not."""


@pytest.fixture(scope="module")
def manifests():
    paths = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [one for path in paths for one in yaml.safe_load_all(path.read_text())]


def spec_of(kind, manifests):
    return next(one["spec"] for one in manifests if one["kind"] == kind)


@pytest.fixture
def cron_job(manifests):
    return spec_of("CronJob", manifests)


@pytest.fixture
def jobs(cron_job, manifests):
    """What each manifest runs: the night, and the workers of a load."""
    return cron_job["jobTemplate"]["spec"], spec_of("Job", manifests)


def flaws(manifest):
    schema = {"$ref": f"#/$defs/{manifest['kind']}", "$defs": SCHEMA["$defs"]}
    return [f"{error.instance_path}: {error.message}" for error in jsonschema_rs.iter_errors(schema, manifest)]


def test_the_manifests_fit_the_schema_of_kubernetes(manifests):
    assert {one["kind"] for one in manifests} == {"PersistentVolumeClaim", "CronJob", "Job"}
    assert [flaw for one in manifests for flaw in flaws(one)] == []


def test_the_schema_finds_what_is_wrong(manifests):
    wrong = json.loads(json.dumps(next(one for one in manifests if one["kind"] == "CronJob")))
    wrong["spec"]["concurencyPolicy"] = "Forbid"
    wrong["spec"]["jobTemplate"]["spec"]["backoffLimit"] = "six"
    assert len(flaws(wrong)) == 2


def test_kubernetes_tries_again_after_the_codes_that_say_so_and_no_other(jobs):
    for job in jobs:
        codes = {
            rule["action"]: set(rule["onExitCodes"]["values"])
            for rule in job["podFailurePolicy"]["rules"]
            if "onExitCodes" in rule
        }
        assert codes == {"FailJob": A_PERSON, "Count": LATER}
        assert job["template"]["spec"]["restartPolicy"] == "Never", "else the policy is not allowed"


def test_nights_do_not_overlap_in_kubernetes(cron_job):
    assert cron_job["concurrencyPolicy"] == "Forbid"
    assert cron_job["startingDeadlineSeconds"] > 10, "below, it may never be started"


def test_all_workers_run_at_once_and_their_passwords_stand_in_a_secret(manifests):
    job = spec_of("Job", manifests)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"]
    (container,) = job["template"]["spec"]["containers"]
    ledger = next(one["value"] for one in container["env"] if one["name"] == "BULKSUBMIT_LEDGER")
    assert isinstance(address_of(ledger), PostgresAddress), "it refuses one with a password"
    assert container["envFrom"] == [{"secretRef": {"name": "bulksubmit-load"}}]


def test_nothing_in_kubernetes_runs_as_root(jobs):
    for pod in (job["template"]["spec"] for job in jobs):
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_ledger_of_the_nights_outlives_the_pod(cron_job):
    pod = cron_job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (ledger,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/data"]
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    assert claims[ledger] == {"claimName": "bulksubmit-ledger"}


def test_systemd_finds_no_fault_with_the_units(tmp_path):
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in (DEPLOY / "systemd").iterdir():  # it looks whether there is such a program
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/bulksubmit", "/bin/true"))
    units = [str(tmp_path / name) for name in ("bulksubmit-nightly.service", "bulksubmit-nightly.timer")]
    done = subprocess.run(
        [verifier, "verify", *units, str(tmp_path / "bulksubmit-failed@x.service")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_tries_again_after_the_codes_that_say_so_and_no_other():
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(DEPLOY / "systemd" / "bulksubmit-nightly.service")
    service = unit["Service"]
    assert (service["Type"], service["Restart"]) == ("oneshot", "on-failure")
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == A_PERSON
    assert int(service["TimeoutStopSec"].removesuffix("s")) > 10, "it may need ten seconds to end in order"


def test_the_image_is_built_from_what_goes_to_the_builder_and_runs_as_nobody():
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    sent = {
        line[1:]
        for line in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert {name for name in sent if not (ROOT / name).exists()} == set()
    assert set(re.findall(r"requirements/\w+\.txt", text)) == {"requirements/run.txt", "requirements/demo.txt"}
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001:10001"]
