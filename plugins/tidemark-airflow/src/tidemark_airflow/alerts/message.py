"""The content of an alert, and its forms for a webhook, a mail and a log. Pure: no I/O here but the templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# a longer line is cut; the log has all of it
_LINE = 1000
# Slack refuses a section over 3,000 characters and a field over 2,000, after escaping
_SECTION = 2900
_FIELD = 1900
# mentions that notify everyone, as in Discord and Mattermost
_CALLS = re.compile(r"@(?=(?:all|channel|everyone|here)\b)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert's content.

    Attributes:
        level: whether someone must act, or should only look.
        event: what happened to the DAG's run, such as "failed".
        code: the error's code; the runbook has an anchor for it.
        reason: the last error, or what is late or changed.
        run: Airflow's id of the run.
        run_id: the run's id in all logs.
        run_url: the run in Airflow's grid.
        runbook: the address or path of the runbook's section.
        owner: the DAG's owner.
        at: when it happened.
        task, attempt, log_url: the failed task, its attempt ("2 of 4"), and its log; None if it is the whole run.
        more: further lines: other failures, changed tables.
        rules_see: whether the rules of monitoring/prometheus report this failure, too.
    """

    level: Literal["error", "warning"]
    event: str
    code: str
    reason: str
    dag: str
    run: str
    run_id: str
    run_url: str
    runbook: str
    owner: str
    at: datetime
    task: str | None = None
    attempt: str | None = None
    log_url: str | None = None
    more: tuple[str, ...] = ()
    rules_see: bool = False

    @property
    def title(self) -> str:
        """One line for a subject or a notification."""
        where = f" in {self.task}" if self.task else ""
        return one_line(f"{self.dag} {self.event}{where} ({self.code})", 150)

    @property
    def cause(self) -> str:
        """The reason, on one line of limited length."""
        return one_line(self.reason)

    @property
    def facts(self) -> dict[str, str]:
        """Further facts, by name."""
        task = f"{self.task}{f', try {self.attempt}' if self.attempt else ''}" if self.task else None
        found = {
            "Task": task,
            "Code": self.code,
            "Owner": self.owner,
            "When": f"{self.at:%Y-%m-%d %H:%M:%S} UTC",
            "Airflow's run": self.run,
            "Run id in all logs": self.run_id,
        }
        return {name: one_line(value) for name, value in found.items() if value}

    @property
    def links(self) -> dict[str, str]:
        """Links, by what they lead to."""
        found = {"The task's log": self.log_url, "The run": self.run_url, "What to do": self.runbook}
        return {name: url for name, url in found.items() if url}

    @property
    def lines(self) -> tuple[str, ...]:
        """The further lines, each on one line."""
        return tuple(map(one_line, self.more))


def one_line(text: str, limit: int = _LINE) -> str:
    """Return `text` on one line of at most `limit` characters, without unprintable ones."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def for_log(alert: Alert) -> str:
    """Return the alert as one line."""
    links = "; ".join(f"{name.lower()}: {url}" for name, url in alert.links.items())
    more = "".join(f"; {line}" for line in alert.lines)
    return f"{alert.title}: {alert.cause}{more}; run {alert.run_id} ({one_line(alert.run)}); {links}"


def for_slack(alert: Alert) -> dict[str, Any]:
    """Return Slack's JSON. `text` repeats it for notifications, Mattermost and Discord, which read only that."""
    links = [
        f"<{_slack(url)}|{name}>" if _is_link(url) else f"{name}: {_slack(url)}" for name, url in alert.links.items()
    ]
    blocks = [
        _section(f"*{_slack(alert.title)}*"),
        # as code, so that asterisks and underscores have no meaning
        _section(_code([alert.cause])),
        {
            "type": "section",
            "fields": [_text(f"*{name}*\n{_slack(value)}") for name, value in alert.facts.items()],
        },
        *([_section(_code(alert.lines))] if alert.lines else []),
        _section(" · ".join(links)),
    ]
    said = [alert.title, alert.cause, *alert.lines, *(f"{name}: {url}" for name, url in alert.links.items())]
    return {"text": _fit(map(_slack, said)), "blocks": blocks}


def for_mail(alert: Alert) -> tuple[str, str, str]:
    """Return subject, text and HTML."""
    text, html = (
        _templates().get_template(name).render(alert=alert, is_link=_is_link) for name in ("mail.txt", "mail.html")
    )
    return f"[Tidemark] {alert.title}", text, html


def _is_link(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _slack(text: str) -> str:
    """Return `text` escaped for Slack, which needs only these three, and without mentions."""
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escaped)
    text = _CALLS.sub("@\u200b", text)
    # don't cut through an escape sequence
    return text if len(text) <= _FIELD else f"{re.sub(r'&[a-z]*$', '', text[: _FIELD - 1])}…"


def _code(lines: Iterable[str]) -> str:
    return f"```{_fit(_slack(line).replace('```', chr(39) * 3) for line in lines)}```"


def _fit(lines: Iterable[str]) -> str:
    """Return as many lines as fit into a section, and how many are left out."""
    waiting = list(lines)
    shown: list[str] = []
    while waiting and len("\n".join([*shown, waiting[0]])) <= _SECTION:
        shown.append(waiting.pop(0))
    return "\n".join([*shown, f"… and {len(waiting)} more"] if waiting else shown)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _text(text)}


def _text(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("tidemark_airflow.alerts"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
