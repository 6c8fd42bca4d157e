from __future__ import annotations

import docs


def test_the_readme_has_the_settings_of_the_tap_as_the_code_has_them():
    readme = docs.README.read_text(encoding="utf-8")
    assert docs.with_tables(readme, "tap") == readme, "run `python docs.py` in the tap's environment"
    assert "| `use_copy` |" in readme
