"""Writes the tables of TPC-H as CSV files, with the answers if DuckDB has them for this scale factor.

`python tpch_files.py DIRECTORY SCALE_FACTOR`, in a venv with DuckDB.
"""

import sys
from pathlib import Path

import duckdb
import duckdb_extension_tpch

directory, factor = Path(sys.argv[1]), float(sys.argv[2])
(extension,) = Path(duckdb_extension_tpch.__file__).parent.rglob("*.duckdb_extension")
connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
connection.execute(f"LOAD '{extension}'")
connection.execute(f"CALL dbgen(sf = {factor})")
for (table,) in connection.execute("SHOW TABLES").fetchall():
    connection.execute(f"COPY {table} TO '{directory / table}.csv' (HEADER false)")
answers = connection.execute("SELECT query_nr, answer FROM tpch_answers() WHERE scale_factor = ?", [factor])
for number, answer in answers.fetchall():
    (directory / f"answer-{number}.csv").write_text(answer)
