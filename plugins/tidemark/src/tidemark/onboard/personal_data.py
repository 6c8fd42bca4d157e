"""Recognises columns that seem to hold personal data, by name, type and the shape of a sample. Pure.

It judges shares of a sample, never values. A mask is only a proposal, so a doubtful name is better named than missed;
but a list of false hits gets confirmed unread, so words that only belong to a thing (`phone_model`) don't count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemark.inspect.column_names import words
from tidemark.onboard.proposal import MaskProposal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.onboard.source_tables import SourceColumn, SourceTable

# the least share of sampled values that have a shape
_SHARE = 0.8


_TEXT = ("text", "character", "citext", "json")


@dataclass(frozen=True)
class _Kind:
    """A kind of personal data.

    Attributes:
        names: a pattern for a name's words, joined by underscores.
        joins: other tables may have the same value, so it is masked by sha256, which keeps equal values equal.
        types: beginnings of the types that can hold it.
    """

    what: str
    names: str
    joins: bool = False
    types: tuple[str, ...] = _TEXT


_NUMBER = (*_TEXT, "bigint", "integer", "numeric")
_KINDS = (
    _Kind(
        "an e-mail address",
        r"(e_?mail|mail|courriel|correo|epost|e_post|eposta|sahkoposti)(_?(address|addr|adresse|adress|electronico))?",
        joins=True,
    ),
    _Kind("a MAC address", r"mac(_?addr(ess)?)?", joins=True, types=(*_TEXT, "macaddr")),
    _Kind(
        "an IP address",
        r"(ip|ipv4|ipv6|ipaddr|ipaddress)(_?addr(ess)?|adresse)?(_v?[46])?",
        joins=True,
        types=(*_TEXT, "inet", "cidr"),
    ),
    _Kind(
        "a phone number",
        r"(phone|telephone|tel|telefon|telefono|telefone|telefoon|telefonnummer|mobile?|mobil|mobilnummer|"
        r"cellphone|cell_phone|fax|handy|handynummer|rufnummer|movil|celular|puhelin|tlf|msisdn|phonenumber|"
        r"homephone|workphone)(_?(phone|number|nummer|numero|num|nr|no))?",
        joins=True,
        types=_NUMBER,
    ),
    _Kind(
        "a bank account or card",
        r"iban|(bank_?)account_?(number|num|no|nr)|kontonummer|bankkonto|(credit|debit)_?card(_?(number|num|no|nr))?|"
        r"(card|cc)_?(number|num|no|nr)|cvv2?|cvc2?|creditcardnumber|kreditkartennummer",
        joins=True,
        types=_NUMBER,
    ),
    _Kind(
        "an official identification number",
        r"ssn|sin_number|social_security(_?(number|num|no))?|socialsecuritynumber|national_?id(_?number)?|"
        r"nationalidnumber|passport(_?(number|num|no|nr))?|passportnumber|tax_?(id|number|no)|taxid|vat_id|nino|"
        r"steuer_?(id|nummer|nr)|personnummer|fodselsnummer|personalausweis(nummer)?|cpf|curp|dni|nif|nie|"
        r"codice_fiscale|codicefiscale|pesel|bsn|aadhaar|cpr(_?nummer)?|"
        r"driver_?s?_?licen[cs]e(_?(number|no))?|fuhrerschein(nummer)?|license_?plate|kennzeichen",
        joins=True,
        types=_NUMBER,
    ),
    _Kind(
        "a login",
        r"(user_?name|username|login_?(name|id)|user_?login|screen_?name|nick_?name|benutzername|utilisateur)",
        joins=True,
    ),
    _Kind(
        "a person's name",
        r"(first|last|given|family|middle|maiden|full|sur|fore|birth)_?names?|surname|forename|firstname|lastname|"
        r"fullname|middlename|vorname|nachname|familienname|geburtsname|prenoms?|nom_de_famille|nom_famille|apellidos?|"
        r"primer_apellido|segundo_apellido|fornavn|etternavn|efternavn|fornamn|efternamn|cognome|sobrenome|imie|"
        r"nazwisko|etunimi|sukunimi|voornaam|achternaam|"
        r"(customer|contact|employee|patient|person|member|student|client|guest|passenger|recipient|owner|holder|"
        r"cardholder|beneficiary|ship|kunden?|mitarbeiter)_?(full_?)?name|contactname|customername|cardholdername",
    ),
    _Kind(
        "a date of birth",
        r"(birth|geburts)_?(date|day|datum|tag|year)|date_of_birth|dateofbirth|dob|birthday|birthdate|geburtsdatum|"
        r"geburtstag|fecha_?(de_)?nacimiento|date_?(de_)?naissance|data_?(di_)?nascita|data_?(de_)?nascimento|"
        r"geboortedatum|fodselsdato|fodselsdag|fodelsedatum|syntymaaika|data_urodzenia",
        types=("date", "timestamp", *_NUMBER, "smallint"),
    ),
    _Kind(
        "a postal address",
        r"((street|home|postal|mailing|billing|shipping|ship|delivery|residential|work|full)_?)?(address|addr)"
        r"(_?(line|street))?(_?[1-4])?|street(_?(name|number|address))?|house_?(number|no|nr)|addressline[1-4]?|"
        r"strasse|str_nr|hausnummer|anschrift|adresse|rue|direccion|calle|domicilio|indirizzo|endereco|adres|"
        r"straat|gatuadress|gateadresse|osoite|ulica",
    ),
    _Kind(
        "a secret",
        r"(pass(word|wd|phrase|code)|pwd|passwort|kennwort|contrasena|mot_de_passe|senha|salasana|losenord)"
        r"(_?(hash|digest|salt|encrypted|crypt))?|(hashed|encrypted|crypted)_?(password|passwd|pwd)|password_?salt|"
        r"((api|access|auth|refresh|session|reset|remember|bearer|oauth|csrf|verification|confirmation|invitation)_?)"
        r"(key|token)|token|private_?key|secret(_?key)?|client_?secret|passwordhash",
        types=(*_TEXT, "bytea", "uuid"),
    ),
    _Kind("a sensitive trait", r"gender|sex|geschlecht|marital_?status|religion|ethnicity|nationality|blood_?type"),
    _Kind(
        "an identifying picture", r"(photo|picture|avatar|portrait|passfoto|signature|fingerprint)", types=("bytea",)
    ),
)
_PATTERNS = [(kind, re.compile(rf"(?:.+_)?(?:{kind.names})(?:_\d+)?")) for kind in _KINDS]
# a thing that has the name of personal data: `email_template`, `web_address`, `ip_range`
_NOT_BEFORE = frozenset(
    {"web", "site", "memory", "wallet", "contract", "bucket", "host", "server", "table", "is", "has", "no"}
)
# generic names are a person's only in a table of persons
_PERSONS = frozenset(
    {
        *("person", "people", "customer", "client", "user", "employee", "staff", "patient", "member", "student"),
        *("contact", "guest", "passenger", "actor", "driver", "citizen", "subscriber", "applicant", "candidate"),
        *("kunde", "kunden", "mitarbeiter", "mitglied", "cliente", "persona", "empleado", "usuario", "personne"),
        *("utilisateur", "kund", "ansatt", "bruker", "asiakas", "henkilo", "klient", "osoba"),
    }
)
_GENERIC = {"name": "a person's name", "nombre": "a person's name", "nom": "a person's name", "navn": "a person's name"}
_PERSONS_ONLY = frozenset({"an identifying picture", "a sensitive trait"})
# the names of the shapes that `sample` measures, with what they mean; all of them may be joined on
SHAPES = {
    "email": "an e-mail address",
    "iban": "a bank account or card",
    "card": "a bank account or card",
    "ip": "an IP address",
    "phone": "a phone number",
}
_JOINED = frozenset({kind.what for kind in _KINDS if kind.joins})


def find(
    table: SourceTable, left_out: Iterable[str] = (), shares: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[MaskProposal, ...]:
    """Return the masks that a table's columns seem to need, in the order of the columns.

    Args:
        left_out: columns that are not read.
        shares: by column, the share of sampled values that have each shape.
    """
    skipped, found = set(left_out), []
    # the last word says what a row is: customer_type is no table of customers
    last = next(iter(words(table.name)[-1:]), "")
    persons = bool({last, last.removesuffix("s")} & _PERSONS)
    for column in table.columns:
        if column.name in skipped:
            continue
        seen = _by_name(column, persons=persons) or _by_type(column) or _by_shape((shares or {}).get(column.name, {}))
        if seen:
            what, why = seen
            found.append(MaskProposal(column.name, _mask(table, column, what), f"{what}, by its {why}"))
    return tuple(found)


def is_text(column: SourceColumn) -> bool:
    """Return whether a column holds text, in which a sample can show personal data."""
    return not column.enum_labels and _plain_type(column).startswith(_TEXT[:-1])


def _plain_type(column: SourceColumn) -> str:
    """Return a column's type without the schema of an extension."""
    return column.base_type.rpartition(".")[2]


def _by_name(column: SourceColumn, *, persons: bool) -> tuple[str, str] | None:
    parts = words(column.name)
    joined = "_".join(parts)
    if column.enum_labels or set(parts[:-1]) & _NOT_BEFORE:
        return None
    for kind, pattern in _PATTERNS:
        if not pattern.fullmatch(joined) or not _plain_type(column).startswith(kind.types):
            continue
        if persons or kind.what not in _PERSONS_ONLY:
            return kind.what, "name"
    if persons and joined in _GENERIC and is_text(column):
        return _GENERIC[joined], "name, in a table of persons"
    return None


def _by_type(column: SourceColumn) -> tuple[str, str] | None:
    # a network (cidr) is not a person's
    if column.base_type == "inet":
        return "an IP address", "type"
    return ("a MAC address", "type") if column.base_type.startswith("macaddr") else None


def _by_shape(shares: Mapping[str, float]) -> tuple[str, str] | None:
    for shape, what in SHAPES.items():
        if (share := shares.get(shape, 0)) >= _SHARE:
            return what, f"values: {share:.0%} of a sample have that shape"
    return None


def _mask(table: SourceTable, column: SourceColumn, what: str) -> str:
    """Return the mask for a column. `null` and `redact` would make a key's rows equal, so a key gets sha256."""
    if what in _JOINED or column.name in table.key or any(column.name in unique for unique in table.unique):
        return "sha256"
    return "redact" if column.not_null and is_text(column) else "null"


def masked_alike(
    found: Mapping[str, tuple[MaskProposal, ...]], tables: Iterable[SourceTable]
) -> dict[str, tuple[MaskProposal, ...]]:
    """Return the masks with those added that keep joins possible: both sides of a foreign key get the same mask.

    Foreign keys are followed from table to table. Where a masked column belongs to one, all columns that are joined
    with it get sha256.

    Args:
        found: masks by stream.
        tables: the tables that are read.
    """
    by_name = {(table.schema, table.name): table for table in tables}
    joined: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for table in by_name.values():
        for key in table.foreign_keys:
            other = by_name.get((key.to_schema, key.to_table))
            for own, theirs in zip(key.columns, key.to_columns, strict=False):
                if other:
                    joined.setdefault((table.stream, own), set()).add((other.stream, theirs))
                    joined.setdefault((other.stream, theirs), set()).add((table.stream, own))
    masks = {(stream, mask.column): mask for stream, each in found.items() for mask in each}
    for start in sorted(masks.keys() & joined.keys()):
        group, waiting = {start}, [start]
        while waiting:
            for node in joined[waiting.pop()] - group:
                group.add(node)
                waiting.append(node)
        for stream, column in group:
            why = f"joined with {start[0]}.{start[1]} by foreign keys"
            known = masks.get((stream, column))
            masks[stream, column] = MaskProposal(column, "sha256", known.why if known else why)
    order = {table.stream: [column.name for column in table.columns] for table in by_name.values()}
    return {
        stream: tuple(masks[stream, column] for column in columns if (stream, column) in masks)
        for stream, columns in order.items()
        if any((stream, column) in masks for column in columns)
    }
