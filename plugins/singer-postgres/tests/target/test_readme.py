from __future__ import annotations

import docs


def test_the_readme_has_the_settings_of_the_target_as_the_code_has_them():
    readme = docs.README.read_text(encoding="utf-8")
    assert docs.with_tables(readme, "target") == readme, "run `python docs.py` in the target's environment"
    assert "| `hard_delete` |" in readme
