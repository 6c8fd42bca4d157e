"""Tells by a column's name whether it looks like a modification stamp, or like a date of the business. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.onboard.words import words

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceColumn

# "changed" in several languages, and what is written in one word
_CHANGED = frozenset(
    {
        *("updated", "update", "upd", "modified", "modify", "modification", "mod", "changed", "change", "altered"),
        *("edited", "touched", "mtime", "utime", "moddate", "modtime", "modifieddate", "modifiedon", "modifiedat"),
        *("datemodified", "lastmodified", "lastmod", "lastupdate", "lastupdated", "lastchange", "lastchanged"),
        *("updatedat", "updatedon", "updatedate", "updateddate", "dateupdated", "changedat", "changedate", "write"),
        *("geandert", "geaendert", "aktualisiert", "anderung", "aenderung", "anderungsdatum", "aenderungsdatum"),
        *("modifie", "maj", "actualizado", "actualizada", "modificado", "modificada", "modificacion", "atualizado"),
        *("modificato", "aggiornato", "endret", "oppdatert", "andrad", "uppdaterad", "aendret", "opdateret"),
        *("gewijzigd", "bijgewerkt", "zmieniono", "zmodyfikowano", "muokattu", "paivitetty"),
    }
)
# beside those, a stamp's name has only such words: price_changed_at says when the price changed
_BESIDE = frozenset(
    {
        *("last", "latest", "at", "on", "in", "date", "time", "datetime", "timestamp", "tstamp", "stamp", "ts", "tz"),
        *("dt", "utc", "gmt", "row", "record", "rec", "db", "sys", "system", "when", "was", "is", "d", "t"),
        *("am", "um", "zuletzt", "letzte", "datum", "zeit", "fecha", "hora", "de", "la", "ultima", "data", "dernier"),
        *("derniere", "mise", "jour", "a", "le", "em", "sist", "siste", "dato", "senast", "laatst", "op", "el", "il"),
    }
)
_BUSINESS = frozenset(
    {
        *("order", "ordered", "due", "birth", "born", "start", "started", "begin", "end", "ended", "finish", "valid"),
        *("from", "to", "until", "since", "payment", "paid", "pay", "ship", "shipped", "shipping", "delivery"),
        *("delivered", "invoice", "invoiced", "billing", "billed", "hire", "hired", "expiry", "expires", "expired"),
        *("effective", "departure", "arrival", "booking", "booked", "rental", "return", "returned", "required"),
        *("sell", "sale", "sold", "purchase", "purchased", "release", "released", "publish", "published", "event"),
        *("scheduled", "appointment", "transaction", "posting", "posted", "period", "deadline", "death", "created"),
    }
)


def is_timestamp(column: SourceColumn) -> bool:
    """Return whether a column holds instants or local times."""
    return column.base_type.startswith("timestamp") and not column.base_type.endswith("[]")


def has_zone(column: SourceColumn) -> bool:
    """Return whether a column's values are instants."""
    return column.base_type.endswith("with time zone") and "without" not in column.base_type


def looks_like_modification(name: str) -> bool:
    """Return whether a name says that the column holds the time of a row's last change."""
    found = {word for word in words(name) if not word.isdigit()}
    return bool(found & _CHANGED) and found <= _CHANGED | _BESIDE


def is_business_date(name: str) -> bool:
    """Return whether a name says that the column holds a date of the business, which no change of a row moves."""
    return bool(set(words(name)) & _BUSINESS) and not looks_like_modification(name)


def has_clock_default(column: SourceColumn) -> bool:
    """Return whether an insert without a value gets the current time."""
    default = (column.default or "").lower()
    return any(word in default for word in ("now()", "current_timestamp", "localtimestamp", "_timestamp()"))
