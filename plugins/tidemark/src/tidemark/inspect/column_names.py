"""Splits names into words, and tells modification stamps from dates of the business by them. Pure."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
# letters that Unicode does not decompose
_LETTERS = str.maketrans({"ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "ß": "ss", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"})
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


def words(name: str) -> tuple[str, ...]:
    """Return a name's words in lower case, without accents: `EmailAddress2` and `email_address_2` are the same."""
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return tuple(match.lower() for match in _WORD.findall(plain))


def looks_like_modification(name: str) -> bool:
    """Return whether a name says that the column holds the time of a row's last change."""
    found = {word for word in words(name) if not word.isdigit()}
    return bool(found & _CHANGED) and found <= _CHANGED | _BESIDE


def is_business_date(name: str) -> bool:
    """Return whether a name says that the column holds a date of the business, which no change of a row moves."""
    return bool(set(words(name)) & _BUSINESS) and not looks_like_modification(name)
