"""The tested types with their values: known odd ones, and some that are drawn at random."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.singer.values import (
    _ASCII,
    _BITS,
    _DATE,
    _DIGITS,
    _FINITE,
    _FLOAT4,
    _FLOAT8,
    _INT2,
    _INT4,
    _INT8,
    _INTERVAL,
    _JSON,
    _NUMERIC,
    _POINT,
    _POINTS,
    _QUERY,
    _TEXT,
    _TIMESTAMP,
    _TIMESTAMPTZ,
    _UINT4,
    _VECTOR,
    Kind,
    _bounds,
    _hexadecimal,
    _hosts,
    _line,
    _networks,
    _offsets,
    _ranges,
    _row,
    _times,
)

_ODD_TEXTS = (
    *(
        "",
        " ",
        "a\tb",
        "a\nb",
        "a\r\nb\r",
        "\r",
        "\n",
        "\\",
        "\\\\",
        "\\N",
        "\\.",
        "\\n",
        "NULL",
        "null",
        '"',
        "'",
        "''",
    ),
    *(
        'a"b',
        ",",
        "{}",
        "()",
        "{NULL}",
        "$$",
        "%",
        "%s",
        "{0}",
        "\x01\x7f",
        "\u200b\ufeff",
        "🐘🏽‍♀️",
        "é",
        "e\u0301",
        "\u2028",
    ),
    *("\b\f\v", "x" * 3000, "ß" * 2000, "trailing  ", "\ufffd", "\U0010ffff", "-- ; drop", "\\x00", "\\123"),
)
_ODD_DAYS = ("infinity", "-infinity", "0001-12-31 BC", "0001-01-01", "4714-11-24 BC", "2000-02-29", "1900-01-01")
_REGS = {
    "regclass": ("pg_class", "16384000", "-"),
    "regproc": ("now", "pg_catalog.sha256", "-"),
    "regprocedure": ("abs(integer)", "sum(bigint)", "-"),
    "regoper": ("||/", "0"),
    "regoperator": ("+(integer,integer)", "-(NONE,bigint)", "0"),
    "regtype": ("int4", "timestamptz[]", "-", '"char"'),
    "regrole": ("pg_monitor", "-", "99999999"),
    "regnamespace": ("pg_catalog", "99999999"),
    "regconfig": ("simple", "german"),
    "regdictionary": ("simple",),
    "regcollation": ('"C"', "ucs_basic", "-"),
    "aclitem": ("pg_monitor=arwdDxt/pg_monitor", "=r/pg_read_all_data", "pg_monitor=r*w/pg_signal_backend"),
}

# types that COPY writes or a view shows, and that nothing can read back
UNREADABLE = frozenset(
    {
        *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector"),
        *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    }
)

# COPY's binary form is used for a table with only these types
BINARY = (
    Kind("bool", "boolean", ("t", "f")),
    Kind("int2", "smallint", ("-32768", "32767"), _INT2.map(str)),
    Kind("int4", "integer", ("-2147483648", "2147483647"), _INT4.map(str)),
    Kind("int8", "bigint", ("-9223372036854775808", "9223372036854775807"), _INT8.map(str)),
    Kind("float4", "real", ("NaN", "-0", "Infinity", "-Infinity", "1e-45", "3.4028235e38", "0.3"), _FLOAT4),
    Kind(
        "float8",
        "double precision",
        ("NaN", "-0", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.30000000000000004"),
        _FLOAT8,
    ),
    Kind(
        "numeric",
        "numeric",
        (
            *("NaN", "Infinity", "-Infinity", "0", "-0", "0.00", "1.0", "1.00", _DIGITS, f"-{_DIGITS}.{_DIGITS}"),
            *("1E131071", "1E-16383", "10000", "0.0001", "1e-100"),
        ),
        _NUMERIC,
    ),
    Kind(
        "numeric_12_2", "numeric(12,2)", ("NaN", "9999999999.99", "-0.01", "1"), st.integers(-(10**9), 10**9).map(str)
    ),
    Kind("numeric_3_n2", "numeric(3,-2)", ("NaN", "99900", "-12345"), st.integers(-99000, 99000).map(str)),
    Kind("numeric_2_5", "numeric(2,5)", ("NaN", "0.00099", "-0.00001")),
    Kind(
        "bytea",
        "bytea",
        ("", "\\x", "\\x00", "\\x5c", "\\x0a0d095c2e"),
        st.binary(max_size=40).map(lambda data: "\\x" + data.hex()),
    ),
    Kind("uuid", "uuid", ("00000000-0000-0000-0000-000000000000",), st.uuids().map(str)),
    Kind("text", "text", _ODD_TEXTS, _TEXT),
    Kind("varchar", "character varying", _ODD_TEXTS, _TEXT),
    Kind("varchar_7", "character varying(7)", ("", "a\tb\\.\n", "\\N", "🐘" * 7, "ab  "), _TEXT.map(lambda t: t[:7])),
    Kind("char_5", "character(5)", ("", "a", "\\N", "🐘" * 5, "\t\n"), _TEXT.map(lambda t: t[:5])),
    Kind("char_1", "character(1)", ("", "\\", "\n")),
    Kind("bpchar", "bpchar", ("", "a   ", "   ", "\\N"), _TEXT, array=""),
    Kind(
        "json",
        "json",
        ("null", ' {"b": 1.0, "a":\t1.00, "b": 2} ', '"\\u0000"', "1e400", '"\\\\"'),
        _JSON.map(json.dumps),
    ),
    Kind(
        "jsonb",
        "jsonb",
        ("null", '{"b": 1.0, "a": 1.00}', '"\\\\N"', "[]", '"\\n\\t"', "1" * 400),
        _JSON.map(lambda value: json.dumps(value, ensure_ascii=False)),
    ),
    Kind("date", "date", (*_ODD_DAYS, "5874897-12-31"), _DATE),
    Kind("time", "time without time zone", ("00:00", "24:00:00", "23:59:59.999999"), _times()),
    Kind("time_3", "time(3) without time zone", ("23:59:59.9995",), _times()),
    Kind(
        "timetz",
        "time with time zone",
        ("24:00:00-15:59:59", "00:00+15:59:59"),
        st.builds(str.__add__, _times(), _offsets()),
    ),
    Kind("timestamp", "timestamp without time zone", (*_ODD_DAYS, "294276-12-31 23:59:59.999999"), _TIMESTAMP),
    Kind("timestamp_0", "timestamp(0) without time zone", _ODD_DAYS, _TIMESTAMP),
    Kind("timestamptz", "timestamp with time zone", (*_ODD_DAYS, "294276-12-31 23:59:59.999999+00"), _TIMESTAMPTZ),
    Kind("timestamptz_3", "timestamp(3) with time zone", _ODD_DAYS, _TIMESTAMPTZ),
    Kind(
        "mood",
        "mood",
        ("sad", 'it\'s "fine"', "a,b", "tab\there", "back\\slash", "NULL", "😀", "\\N"),
        lands="text",
        array="text[]",
    ),
    Kind("price", "price", ("1.5", "9999999999.99"), lands="numeric(12,2)", array="numeric(12,2)[]"),
    Kind("net_price", "net_price", ("1.5", "9999999999.99"), lands="numeric(12,2)", array="numeric(12,2)[]"),
)

OTHERS = (
    Kind(
        "interval",
        "interval",
        (
            "0",
            "-1 mons +1 day -00:00:00.000001",
            "30 days",
            "1 mon",
            "2147483647 mons",
            "-2147483647 mons",
            "2147483647 days",
        ),
        _INTERVAL,
    ),
    Kind("interval_2", "interval(2)", ("1.999 s",), _INTERVAL),
    Kind("interval_ds", "interval day to second(3)", ("3 days 00:00:01.0005",)),
    Kind("interval_ym", "interval year to month", ("-1 year -2 mons", "13 mons")),
    Kind("interval_inf", "interval", ("infinity", "-infinity", "1 s"), since=17),
    Kind("inet", "inet", ("0.0.0.0/0", "::/0", "::ffff:1.2.3.4", "1.2.3.4"), _hosts()),
    Kind("cidr", "cidr", ("0.0.0.0/0", "::/0", "10.0.0.0/8"), _networks()),
    Kind("macaddr", "macaddr", ("00:00:00:00:00:00",), _hexadecimal(6)),
    Kind("macaddr8", "macaddr8", ("ff:ff:ff:ff:ff:ff:ff:ff",), _hexadecimal(8)),
    Kind("bit_5", "bit(5)", ("00000", "10101"), st.text("01", min_size=5, max_size=5)),
    Kind("varbit", "bit varying", ("", "0", "1" * 70), _BITS),
    Kind("varbit_9", "bit varying(9)", ("", "101"), _BITS.map(lambda bits: bits[:9])),
    Kind("money", "money", ("-92233720368547758.08", "92233720368547758.07", "0.01", "-1234567.89"), _INT4.map(str)),
    Kind("tsvector", "tsvector", ("", "' ' '''' '\\\\' 'a':1A,2B"), _VECTOR),
    Kind("tsquery", "tsquery", ("", "!'a b' & ''''"), _QUERY),
    Kind("point", "point", ("(NaN,-0)", "(Infinity,1e-300)"), _POINT),
    Kind("line", "line", ("{1,-1,0}",), st.tuples(_FINITE, _FINITE, _FINITE).map(_line)),
    Kind("lseg", "lseg", (), st.builds("[{},{}]".format, _POINT, _POINT)),
    Kind("box", "box", ("(1,1),(0,0)",), st.builds("{},{}".format, _POINT, _POINT), delimiter=";"),
    Kind("path", "path", (), _POINTS.map("[{}]".format) | _POINTS.map("({})".format)),
    Kind("polygon", "polygon", (), _POINTS.map("({})".format)),
    Kind("circle", "circle", ("<(0,-0),0>",), st.builds("<{},{}>".format, _POINT, st.floats(0).map(repr))),
    Kind(
        "char",
        '"char"',
        ("", "a", "\\", "\t", "\n", "'", "\\200", "\\377"),
        st.characters(min_codepoint=1, max_codepoint=126),
    ),
    Kind("name", "name", ("", "\\N", "é" * 31, "a b"), _ASCII),
    Kind("oid", "oid", ("0", "4294967295"), _UINT4.map(str)),
    Kind("xid", "xid", ("0", "4294967295"), _UINT4.map(str)),
    Kind("cid", "cid", ("0", "4294967295"), _UINT4.map(str)),
    Kind("xid8", "xid8", ("0", "18446744073709551615"), st.integers(0, 2**64 - 1).map(str)),
    Kind("tid", "tid", ("(0,0)", "(4294967295,65535)"), st.builds("({},{})".format, _UINT4, st.integers(0, 65535))),
    Kind("pg_lsn", "pg_lsn", ("0/0", "FFFFFFFF/FFFFFFFF"), st.builds("{:X}/{:X}".format, _UINT4, _UINT4)),
    Kind("txid_snapshot", "txid_snapshot", ("10:20:10,14,15", "1:1:")),
    Kind("pg_snapshot", "pg_snapshot", ("10:20:10,14,15", "1:1:")),
    Kind(
        "oidvector",
        "oidvector",
        ("", "1 4294967295"),
        st.lists(_UINT4, max_size=9).map(lambda ns: " ".join(map(str, ns))),
    ),
    Kind(
        "int2vector", "int2vector", ("", "1 -2 3"), st.lists(_INT2, max_size=9).map(lambda ns: " ".join(map(str, ns)))
    ),
    Kind("refcursor", "refcursor", ("", "\\N", "a\tb"), _TEXT),
    Kind(
        "jsonpath",
        "jsonpath",
        (
            "$",
            'strict $."a b"[*] ? (@ > 1.50 && exists (@.c))',
            "$.a.type()",
            'lax $.* ? (@ like_regex "^\\\\d+$" flag "i")',
        ),
    ),
    *(Kind(name, name, odd, lands="text", array="text[]") for name, odd in _REGS.items()),
    *(Kind(f"{name}range", f"{name}range", ("empty", "(,)"), _ranges(bound, text)) for name, bound, text in _bounds()),
    *(
        Kind(f"{name}multirange", f"{name}multirange", ("{}", "{(,)}"), _ranges(bound, text, multi=True))
        for name, bound, text in _bounds()
    ),
    # user-defined types
    Kind(
        "pair",
        "pair",
        (_row("1", "a"), _row(None, None), _row("2", ""), _row("-3", '"\\,()\n\tü')),
        st.builds(_row, _INT4.map(str), _TEXT),
        lands="text",
        array="text[]",
    ),
    Kind("of_pairs", "of_pairs", (_row(_row("1", 'a"b'), "{1.5,NULL}", "sad"),), lands="text", array="text[]"),
    Kind("a_row", "a_table", (_row("1", "x"),), lands="text", array="text[]"),
    Kind(
        "floatrange",
        "floatrange",
        ("empty", "[1.5,2.5)", "(,NaN]"),
        _ranges(_FINITE, repr),
        lands="text",
        array="text[]",
    ),
    Kind("floatmultirange", "floatmultirange", ("{}", "{[1.5,2.5),[9,10]}"), lands="text", array="text[]"),
    Kind("label", "label", ("", "x", "\\N"), lands="character(3)", array="character(3)[]"),
    Kind("moods", "moods", ("{sad,NULL}", '{"a,b"}'), lands="text[]", array="text[]"),
    Kind("prices", "prices", ("{1.5,NULL,3}", "{}"), lands="numeric(12,2)[]", array="text[]"),
    Kind("a_mood", "a_mood", ("sad", "NULL"), lands="text", array="text[]"),
    Kind("a_pair", "a_pair", (_row("1", "a"),), lands="text", array="text[]"),
    Kind("a_box", "a_box", ("(1,1),(0,0)",), lands="box", array="box[]", delimiter=";"),
    Kind("text_named_so", 'public."text"', ("x", "NULL"), lands="text", array="text[]"),
    Kind("number_named_so", 'public."numeric"', ("1.0", "NaN"), lands="numeric", array="numeric[]"),
    Kind("odd_named", '"Odd ""Schema"".%"."Odd.Type[](1)"', ("x", "NULL"), lands="text", array="text[]"),
    Kind("odd_domain", '"Odd ""Schema"".%"."text"', ("x", "NULL"), lands="text", array="text[]"),
)

XML = Kind("xml", "xml", ("<a/>", "text only", "<a b='&amp;'>\n\t\\N</a><c/>", "<?xml version='1.0'?><a/>", ""))

EXTENSIONS = (
    Kind("hstore", "hstore", ("", '"a"=>NULL, "b"=>"\\\\N\t"', '"🐘"=>"x"'), array="text[]"),
    Kind("citext", "citext", _ODD_TEXTS[:20], _TEXT, array="text[]"),
    Kind("ltree", "ltree", ("", "a.b.c"), array="text[]"),
    Kind("cube", "cube", ("(1,2),(3,4)",), array="text[]"),
)

SETUP = """
    create type mood as enum ('sad', 'it''s "fine"', 'a,b', E'tab\\there', 'back\\slash', 'NULL', '😀', '\\N', 'ok');
    create domain price as numeric(12,2) check (value > 0); create domain net_price as price check (value < 1e11);
    create type pair as (a int, b text); create type of_pairs as (p pair, n price[], m mood);
    create table a_table (id int primary key, note text);
    create type floatrange as range (subtype = float8, multirange_type_name = floatmultirange);
    create domain label as char(3); create domain moods as mood[]; create domain prices as price[];
    create domain a_mood as mood; create domain a_pair as pair; create domain a_box as box;
    create type public."text" as enum ('x', 'NULL'); create domain public."numeric" as pg_catalog.numeric;
    create schema "Odd ""Schema"".%"; create type "Odd ""Schema"".%"."Odd.Type[](1)" as enum ('x', 'NULL');
    create domain "Odd ""Schema"".%"."text" as pg_catalog.text;
"""
