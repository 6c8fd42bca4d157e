"""The rules of Prometheus and the configuration of Alertmanager hold what docs/how-to/monitoring.md says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict

import pytest
import yaml

from singer_postgres.core.errors import catalogue
from tests.conftest import REPOSITORY
from tests.project.alert_rules import ALERTS, PROMETHEUS, RULES
from tidemark import errors  # noqa: F401 - the catalogue includes its classes
from tidemark.logs.metrics import ShipperCollector
from tidemark.logs.ship import Totals
from tidemark.metrics import catalogue as metrics

ALERTMANAGER = REPOSITORY / "monitoring" / "alertmanager"
NAMES = {alert["alert"] for alert in ALERTS}
CASES = [
    case
    for path in sorted(PROMETHEUS.glob("tests/*.yml"))
    for test in yaml.safe_load(path.read_text())["tests"]
    for case in test["alert_rule_test"]
]
MAIL = {
    "TIDEMARK_ALERTS_EMAIL_TO": "data@example.com, oncall@example.com",
    "TIDEMARK_ALERTS_EMAIL_FROM": "tidemark@example.com",
    "TIDEMARK_ALERTS_SMTP_HOST": "smtp.example.com",
}
HOOK = {"TIDEMARK_ALERTS_WEBHOOK_URL": "https://hooks.example.com/it's-secret"}


def tool(name):
    if not shutil.which(name):
        pytest.skip(f"there is no {name}; Debian's packages are prometheus and prometheus-alertmanager")
    return name


def configure(**variables):
    return subprocess.run(
        [ALERTMANAGER / "configure.sh"],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_rules_fire_above_their_threshold_not_at_it_and_end():
    done = subprocess.run(
        [tool("promtool"), "test", "rules", *sorted(PROMETHEUS.glob("tests/*.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_ones_before_and_after_in_which_it_does_not():
    seen = defaultdict(list)
    for case in CASES:
        seen[case["alertname"]].append("exp_alerts" in case)
    assert seen.keys() == NAMES
    for name, fires in seen.items():
        assert re.search("01+0", "".join("01"[fired] for fired in fires)), name


def test_each_alert_has_a_severity_a_summary_with_figures_and_a_link_to_the_runbook():
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert re.search(r"\$value|\| value", alert["annotations"]["summary"]), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "runbook_url"}


def test_an_alert_that_rests_on_the_exporter_outlasts_it_until_its_absence_is_reported():
    for alert in ALERTS:
        rests = alert["labels"]["component"] == "tidemark"
        assert rests == ("keep_firing_for" in alert or alert["alert"] == "TidemarkPartUnreadable"), alert["alert"]


def test_rules_use_tidemarks_metrics_with_labels_that_they_have():
    known = {metric.name: {*metric.labels, "job", "instance"} for metric in metrics.ALL}
    for family in ShipperCollector(Totals()).collect():
        known |= {sample.name: {*sample.labels, "job", "instance"} for sample in family.samples}
    series = [case for path in PROMETHEUS.glob("tests/*.yml") for case in yaml.safe_load(path.read_text())["tests"]]
    for name, labels in re.findall(r"\b(tidemark_\w+)(?:\{([^}]*)\})?", "\n".join(rule["expr"] for rule in RULES)):
        assert name in known or any(rule.get("record", "").endswith(f":{name}") for rule in RULES), name
        assert set(re.findall(r"(\w+)(?:=|!)", labels)) <= known.get(name, set()), name
    for one in (one["series"] for case in series for one in case["input_series"]):
        if one.startswith("tidemark_"):
            name, _, labels = one.partition("{")
            assert set(re.findall(r'(\w+)="', labels)) <= known[name], one


def test_refused_changes_are_the_codes_of_the_runbooks_section_shape():
    expected = {kind.code for kind in catalogue() if kind.section == "shape"}
    (refused,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "StreamSchemaRefused")
    (failed,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "StreamFailed")
    assert set(re.search("code=~'([^']+)'", refused)[1].split("|")) == expected
    assert set(re.search("code!~'([^']+)'", failed)[1].split("|")) == expected


def test_inhibitions_name_alerts_that_exist():
    rules = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())["inhibit_rules"]
    for rule in rules:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            if found := re.fullmatch(r'alertname(=~?)"(.+)"', matcher):
                for name in found[2].split("|"):
                    assert any(re.fullmatch(name, one) for one in NAMES), matcher


@pytest.mark.parametrize(
    ("variables", "receiver"),
    [
        pytest.param({}, "nobody", id="airflow by default"),
        pytest.param({"TIDEMARK_ALERTS_BY": "airflow"}, "nobody", id="airflow"),
        pytest.param({"TIDEMARK_ALERTS_BY": "alertmanager"}, "people", id="alertmanager"),
    ],
)
def test_what_airflow_reports_too_is_sent_by_one_of_both(variables, receiver, tmp_path):
    configuration = tmp_path / "alertmanager.yml"
    configuration.write_text(configure(**variables).stdout)
    for alert in ALERTS:
        labels = [f"{name}={value}" for name, value in alert["labels"].items()]
        done = subprocess.run(
            [tool("amtool"), "config", "routes", "test", f"--config.file={configuration}", *labels],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == (receiver if "also_from" in alert["labels"] else "people"), alert["alert"]


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        pytest.param({}, set(), id="nowhere"),
        pytest.param(HOOK, {"slack_configs"}, id="webhook"),
        pytest.param(MAIL, {"email_configs"}, id="mail"),
        pytest.param(
            {**HOOK, **MAIL, "TIDEMARK_ALERTS_SMTP_USER": "u", "TIDEMARK_ALERTS_SMTP_PASSWORD": "it's"},
            {"slack_configs", "email_configs"},
            id="both",
        ),
    ],
)
def test_alertmanager_sends_where_the_settings_say(variables, kinds, tmp_path):
    done = configure(TIDEMARK_ALERTS_RUNBOOK_URL="https://git.example.com/docs/runbook.md", **variables)
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in yaml.safe_load(done.stdout)["receivers"]}
    assert set(found["people"]) - {"name"} == kinds
    assert found["nobody"] == {"name": "nobody"}
    for (receiver,) in (found["people"][kind] for kind in kinds):
        assert '"^docs/runbook[.]md" "https://git.example.com/docs/runbook.md"' in receiver["text"]
        assert receiver["send_resolved"] is True
    for kind, name, variable in (
        ("slack_configs", "api_url", "TIDEMARK_ALERTS_WEBHOOK_URL"),
        ("email_configs", "to", "TIDEMARK_ALERTS_EMAIL_TO"),
        ("email_configs", "auth_password", "TIDEMARK_ALERTS_SMTP_PASSWORD"),
    ):
        assert found["people"].get(kind, [{}])[0].get(name) == variables.get(variable)
    configuration = tmp_path / "alertmanager.yml"
    configuration.write_text(done.stdout)
    subprocess.run([tool("amtool"), "check-config", configuration], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TIDEMARK_ALERTS_BY": "both"}, "TIDEMARK_ALERTS_BY=both: the values are airflow and alertmanager"),
        ({"TIDEMARK_ALERTS_EMAIL_TO": "a@example.com"}, "so TIDEMARK_ALERTS_EMAIL_FROM must be set too"),
        ({**MAIL, "TIDEMARK_ALERTS_SMTP_SECURITY": "tls"}, "the values are starttls, ssl and none"),
        ({**MAIL, "TIDEMARK_ALERTS_SMTP_SECURITY": "ssl", "TIDEMARK_ALERTS_SMTP_PORT": "994"}, "needs port 465"),
        ({**MAIL, "TIDEMARK_ALERTS_SMTP_USER": "u"}, "set both of TIDEMARK_ALERTS_SMTP_USER and"),
    ],
    ids=["by", "from", "security", "port", "password"],
)
def test_a_wrong_setting_of_alertmanager_leads_to_one_line(variables, said):
    done = configure(**variables)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
