"""Sphinx's configuration; `make site` copies this folder beside what it is built from, and builds there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "llmva"
author = copyright = "the llmva developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "mathml", "aliases"]
exclude_patterns = [
    "README.md",
    "claims.md",
    "runtime_claims.md",
    "items.md",
    "DEVIATIONS.md",
    "CHANGELOG.md",
    "STYLE.md",
    "tables",
    "figures",
    "code",
    "examples",
]

# Notebooks are shown as they are tracked, and never run.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "llmva"
html_static_path = ["_static"]
# Reports as the commands left them.
html_extra_path = ["extra"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_js_files = [("sort.js", {"defer": "defer"})]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#00598f", "color-brand-content": "#00598f"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e8", "color-brand-content": "#6cb8e8"},
}
