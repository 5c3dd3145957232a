"""The documentation site: python -m sphinx -W -b html docs docs/_build."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from configuration_keys import page  # noqa: E402

project = "stability"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "stability"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
# Links to files of the repository that are no pages are downloads.
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Lexers differ in what they make of options with brackets.
suppress_warnings = ["misc.highlighting_failure"]

(Path(__file__).parent / "reference" / "configuration.md").write_text(page())


def put_readme(app: Sphinx, name: str, content: list[str]) -> None:
    """Make the overview of the README: its links lead to pages of the site, or to files of the repository."""
    if name == "overview":
        text = re.sub(r"\]\((?!https?:|#)(?!docs/)", "](../", (ROOT / "README.md").read_text()).replace("](docs/", "](")
        # Pages of Markdown outside of docs/ are no pages of the site.
        content[0] = re.sub(r"\[([^\]]+)\]\(\.\./[\w/]+\.md\)", r"\1", text)


def setup(app: Sphinx) -> None:
    """Connect what changes sources."""
    app.connect("source-read", put_readme)
