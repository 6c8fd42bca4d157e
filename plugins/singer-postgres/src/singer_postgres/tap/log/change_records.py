"""Turns the changes of one table into records, for targets and stream maps that need single rows.

They have the two columns of the MeltanoLabs tap's LOG_BASED records: `_sdc_lsn`, here the position of the transaction's
commit, and `_sdc_deleted_at`, which is set in the record of a deleted row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import TypeUnsupportedError
from singer_postgres.core.source import pgoutput
from singer_postgres.tap import records
from singer_postgres.tap.log import change_rows
from singer_postgres.tap.log.record_values import UncarriedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from singer_postgres.core.source.pgoutput import RelationMessage

DELETED_AT, LSN = "_sdc_deleted_at", "_sdc_lsn"
_NULL = b"\\N"


class ChangeRecords:
    """Makes the records of one table, as it is described by one Relation message.

    Attributes:
        has_unchanged: a record lacks TOASTed values that did not change.
    """

    def __init__(
        self,
        relation: RelationMessage,
        key: Sequence[str],
        readers: Mapping[str, tuple[str, Callable[[str], Any]]],
        masks: Mapping[str, Callable[[bytes], bytes | None]],
    ) -> None:
        """Prepare for a table.

        Args:
            key: the columns that identify a row.
            readers: by selected column, its name in the record, and a function that returns the value for a text of the
                log.
            masks: by column, a function that masks a value.
        """
        self._relation = relation
        names = [column.name for column in relation.columns]
        self._wanted = [(index, name) for index, name in enumerate(names) if name in readers]
        self._key = [names.index(name) for name in key]
        self._in_identity = {index for index, column in enumerate(relation.columns) if column.is_key}
        self._readers, self._masks = readers, masks
        self.has_unchanged = False

    def of(self, message: bytes, lsn: int, at: str) -> list[dict[str, Any]]:
        """Return the records of a change: two if it changed the row's key.

        Args:
            lsn: the position of the transaction's commit.
            at: when it was committed.

        Raises:
            LogUnfitError, TypeUnsupportedError: a record can't have a value.
        """
        kind, start = pgoutput.first_tuple(message)
        unchanged: list[int] = []
        values, after = pgoutput.tuple_at(message, start, _NULL, unchanged)
        tag = message[0]
        if tag == pgoutput.INSERT:
            if any(index in unchanged for index, _ in self._wanted):
                raise change_rows.incomplete(self._relation)
            return [self._record(values, lsn)]
        if tag == pgoutput.DELETE:
            return [self._deletion(values, lsn, at)]
        if kind == pgoutput.NEW:
            return [self._record(values, lsn, unchanged)]
        old, unchanged = values, []
        # after the kind of the new values
        values, _ = pgoutput.tuple_at(message, after + 1, _NULL, unchanged)
        if kind == pgoutput.OLD:
            for index in unchanged:
                values[index] = old[index]
            unchanged = []
        record = self._record(values, lsn, unchanged)
        has_moved = any(old[index] != values[index] for index in self._key)
        return [self._deletion(old, lsn, at), record] if has_moved else [record]

    def _record(self, values: list[bytes], lsn: int, unchanged: Sequence[int] = ()) -> dict[str, Any]:
        record = {
            self._readers[name][0]: self._value(name, values[index])
            for index, name in self._wanted
            if index not in unchanged
        }
        self.has_unchanged |= bool(unchanged)
        return {**record, DELETED_AT: None, LSN: lsn}

    def _deletion(self, old: list[bytes], lsn: int, at: str) -> dict[str, Any]:
        known = [(index, name) for index, name in self._wanted if index in self._in_identity]
        record = {self._readers[name][0]: self._value(name, old[index]) for index, name in known}
        return {**record, DELETED_AT: at, LSN: lsn}

    def _value(self, name: str, value: bytes) -> Any:
        if value is _NULL:
            return None
        if (mask := self._masks.get(name)) is not None:
            masked = mask(value)
            return None if masked is None else masked.decode()
        try:
            return self._readers[name][1](value.decode())
        except UncarriedError as error:
            relation = f"{self._relation.schema}.{self._relation.name}"
            raise TypeUnsupportedError(records.uncarried(relation, name)) from error
