"""What onboarding recognises in the source's own code: triggers that keep a column, and lists of allowed values."""

from __future__ import annotations

import pytest

from tidemark.onboard.triggers import Trigger, kept_columns
from tidemark.onboard.value_lists import value_list


def plpgsql(body: str, **more) -> Trigger:
    return Trigger("t", "f", "plpgsql", body, **more)


PROOFS = {
    "plain": ("begin new.x := now(); return new; end", {"x": None}),
    "equals sign": ("BEGIN NEW.x = CURRENT_TIMESTAMP; RETURN NEW; END;", {"x": None}),
    "Pagila": ("\nBEGIN\n    NEW.last_update = CURRENT_TIMESTAMP;\n    RETURN NEW;\nEND ", {"last_update": None}),
    "declarations": ("declare a int := 1; begin new.x := clock_timestamp(); return new; end", {"x": None}),
    "qualified": ("begin new.x := pg_catalog.now(); return new; end", {"x": None}),
    "precision": ("begin new.x := current_timestamp(3); return new; end", {"x": None}),
    "cast": ("begin new.x := now()::timestamp without time zone; return new; end", {"x": None}),
    "parentheses": ("begin new.x := ((now())); return new; end", {"x": None}),
    "local": ("begin new.x := localtimestamp; return new; end", {"x": None}),
    "statement": ("begin new.x := statement_timestamp(); return new; end", {"x": None}),
    "zone as a function": ("begin new.x := timezone('utc'::text, now()); return new; end", {"x": "utc"}),
    "zone": ("begin new.x := (now() at time zone 'Europe/Oslo'); return new; end", {"x": "Europe/Oslo"}),
    "quoted": ('begin NEW."Changed ""At" := now(); return new; end', {'Changed "At': None}),
    "two columns": (
        "begin new.x := now(); new.n := new.n + 1; new.y := now(); return new; end",
        {"x": None, "y": None},
    ),
    "comments": ("begin -- new.y := 1;\n/* new.z := now(); */ new.x := now(); return new; end", {"x": None}),
    "after an if": ("begin if new.a then new.b := 1; end if; new.x := now(); return new; end", {"x": None}),
    "operation": ("begin if TG_OP = 'UPDATE' then new.x := now(); end if; return new; end", {"x": None}),
    "text with the word": ("begin raise notice 'if; return'; new.x := now(); return new; end", {"x": None}),
}


@pytest.mark.parametrize(("body", "proven"), PROOFS.values(), ids=PROOFS)
def test_a_trigger_that_sets_the_time_at_each_update_is_recognised(body, proven):
    kept = kept_columns(plpgsql(body))
    assert (kept.proven, kept.doubtful) == (proven, {})


DOUBTS = {
    "in an if": "begin if new.a is distinct from old.a then new.x := now(); end if; return new; end",
    "in an else": "begin if tg_op = 'UPDATE' then null; else new.x := now(); end if; return new; end",
    "in a nested block": "begin if new.a then begin new.x := now(); end; end if; return new; end",
    "in a loop": "begin for i in 1..n loop new.x := now(); end loop; return new; end",
    "in a case": "begin case new.a when 1 then new.x := now(); end case; return new; end",
    "in a handler": "begin perform f(); exception when others then new.x := now(); return new; end",
    "after a return": "begin if new.a = old.a then return new; end if; new.x := now(); return new; end",
    "and something else": "begin new.x := now(); if new.a then new.x := old.x; end if; return new; end",
}


@pytest.mark.parametrize("body", DOUBTS.values(), ids=DOUBTS)
def test_a_trigger_that_may_leave_the_time_alone_is_no_proof_and_says_so(body):
    kept = kept_columns(plpgsql(body))
    assert kept.proven == {}
    assert kept.doubtful["x"].startswith("trigger t ")


def test_conditions_of_the_trigger_itself_are_no_proof():
    body = "begin new.x := now(); return new; end"
    assert "WHEN" in kept_columns(plpgsql(body, has_condition=True)).doubtful["x"]
    assert "certain columns" in kept_columns(plpgsql(body, only_columns=True)).doubtful["x"]
    assert kept_columns(Trigger("t", "moddatetime", "c", "moddatetime", ("x",))).proven == {"x": None}


OTHER_BODIES = {
    "not the time": "begin new.x := 1; return new; end",
    "rounded": "begin new.x := date_trunc('day', now()); return new; end",
    "later": "begin new.x := now() + interval '1 day'; return new; end",
    "case": "begin new.x := case when new.a then now() else old.x end; return new; end",
    "old": "begin old.x := now(); return new; end",
    "unfinished": "begin if new.a then new.x :=",
    "empty": "",
}


@pytest.mark.parametrize("body", OTHER_BODIES.values(), ids=OTHER_BODIES)
def test_other_code_of_triggers_proves_nothing(body):
    assert kept_columns(plpgsql(body)).proven == {}


LISTS = {
    "CHECK ((status = ANY (ARRAY['a'::text, 'b'::text])))": ("status", ("a", "b")),
    "CHECK (((s)::text = ANY ((ARRAY['a'::character varying, 'it''s'::character varying])::text[])))": (
        "s",
        ("a", "it's"),
    ),
    "CHECK (((r)::text = ANY (ARRAY[('G'::character varying)::text, ('x,y'::character varying)::text])))": (
        "r",
        ("G", "x,y"),
    ),
    "CHECK ((\"Select\" = ANY (ARRAY[1, 2, '-3'::integer])))": ("Select", ("1", "2", "-3")),
    "CHECK ((mood = ANY (ARRAY['a'::public.mood, 'b'::public.\"Mood\"])))": ("mood", ("a", "b")),
    "CHECK ((a = 'x'::bpchar))": ("a", ("x",)),
    "CHECK (((a = 'x'::text) OR (a = 'y'::text)))": ("a", ("x", "y")),
    "CHECK (((a IS NULL) OR (a = ANY (ARRAY['x'::text]))))": ("a", ("x",)),
    "CHECK (((a = ANY (ARRAY['x'::text])) OR (a IS NULL)))": ("a", ("x",)),
    "CHECK ((a = ANY (ARRAY[E'back\\\\slash'::text])))": ("a", ("back\\slash",)),
}


@pytest.mark.parametrize(("definition", "found"), LISTS.items(), ids=LISTS)
def test_a_check_that_lists_values_is_read(definition, found):
    allowed = value_list(definition)
    assert allowed
    assert (allowed.column, allowed.values) == found


@pytest.mark.parametrize(
    "definition",
    [
        "CHECK ((upper((maritalstatus)::text) = ANY (ARRAY['M'::text, 'S'::text])))",
        "CHECK ((a > 0))",
        "CHECK (((a = 'x'::text) OR (b = 'y'::text)))",
        "CHECK (((a = 'x'::text) AND (a = 'y'::text)))",
        "CHECK ((a <> ALL (ARRAY['x'::text])))",
        "CHECK ((a = ANY (ARRAY['x'::text, lower('Y'::text)])))",
        "CHECK (((a)::text ~ '^x'::text))",
        "CHECK ((a = ANY (ARRAY['x'::text]))) NOT VALID",
        "CHECK (a)",
        "CHECK ((a = b))",
    ],
)
def test_a_check_that_says_anything_else_is_no_list(definition):
    assert value_list(definition) is None


def test_a_domains_list_is_the_columns():
    allowed = value_list("CHECK ((VALUE = ANY (ARRAY['a'::text])))", "rated")
    assert allowed
    assert allowed.column == "rated"
