"""Writes the rows of TPC-H's refresh functions as CSV files, and DuckDB's answers after each of them.

`python tpch_refreshes.py DIRECTORY SCALE_FACTOR ROUNDS`, in a venv with DuckDB. In round N, RF1 inserts `orders.uN.csv`
and `lineitem.uN.csv`, and RF2 deletes the orders of `delete.uN.csv` with their lines. Each takes a thousandth of all
orders, as TPC-H says. `answer-Q.rf1-N.csv` and `answer-Q.rf2-N.csv` are the answers to query Q after them.

DuckDB's dbgen writes no such rows. The new orders are its orders of a larger scale factor: those that come after this
one's. Their customers are mapped to this one's, and their keys to gaps that dbgen leaves: it uses 8 of 32 keys. A round
takes every tenth of the dearest orders, because the queries' first rows come from these.
"""

import sys
from pathlib import Path

import duckdb
import duckdb_extension_tpch

directory, factor, rounds = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
(extension,) = Path(duckdb_extension_tpch.__file__).parent.rglob("*.duckdb_extension")
connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
connection.execute(f"LOAD '{extension}'")
connection.execute(f"CALL dbgen(sf = {factor})")
connection.execute(f"CALL dbgen(sf = {1.1 * factor}, suffix = '_more')")
connection.execute("""
    SET VARIABLE size = (SELECT count(*) // 1000 FROM orders);
    SET VARIABLE last_key = (SELECT max(o_orderkey) FROM orders);
    SET VARIABLE customers = (SELECT count(*) FROM customer);
    CREATE MACRO round_of(rank) AS CASE WHEN rank <= 10 * getvariable('size') THEN rank % 10 + 1 END;

    CREATE TABLE inserted AS
    SELECT
        o_orderkey AS key,
        o_orderkey - getvariable('last_key') // 32 * 32 + 8 AS new_key,
        round_of(row_number() OVER (ORDER BY o_totalprice DESC, o_orderkey)) AS round
    FROM orders_more
    WHERE o_orderkey > getvariable('last_key');

    CREATE TABLE inserted_orders AS
    SELECT
        orders_more.* REPLACE (new_key AS o_orderkey, (o_custkey - 1) % getvariable('customers') + 1 AS o_custkey),
        round
    FROM orders_more JOIN inserted ON o_orderkey = key;

    CREATE TABLE inserted_lineitem AS
    SELECT lineitem_more.* REPLACE (new_key AS l_orderkey), round
    FROM lineitem_more JOIN inserted ON l_orderkey = key;

    CREATE TABLE deleted AS
    SELECT o_orderkey AS key, round_of(row_number() OVER (ORDER BY o_totalprice DESC, o_orderkey)) AS round
    FROM orders;

    CREATE VIEW new_orders AS
    SELECT * EXCLUDE (round) FROM inserted_orders WHERE round = getvariable('round') ORDER BY ALL;
    CREATE VIEW new_lineitem AS
    SELECT * EXCLUDE (round) FROM inserted_lineitem WHERE round = getvariable('round') ORDER BY ALL;
    CREATE VIEW old_orders AS
    SELECT key FROM deleted WHERE round = getvariable('round') ORDER BY ALL;
""")


def write(query: str, name: str) -> None:
    """Write the rows of a query to a file."""
    connection.execute(f"COPY ({query}) TO '{directory / name}.csv' (HEADER, DELIMITER '|')")


def write_answers(state: str) -> None:
    """Write the answers that the tables' rows give now."""
    for number, query in connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall():
        if number in {1, 3, 6, 10, 12, 18}:
            write(query.strip().rstrip(";"), f"answer-{number}.{state}")


for number in range(1, rounds + 1):
    connection.execute(f"SET VARIABLE round = {number}")
    write("FROM new_orders", f"orders.u{number}")
    write("FROM new_lineitem", f"lineitem.u{number}")
    write("FROM old_orders", f"delete.u{number}")
    connection.execute("INSERT INTO orders FROM new_orders; INSERT INTO lineitem FROM new_lineitem")
    write_answers(f"rf1-{number}")
    connection.execute("""
        DELETE FROM orders WHERE o_orderkey IN (FROM old_orders);
        DELETE FROM lineitem WHERE l_orderkey IN (FROM old_orders);
    """)
    write_answers(f"rf2-{number}")
