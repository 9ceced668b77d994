"""Sphinx: the guide in Markdown, the reference from the docstrings."""

import ordmap

project = "ordmap"
author = "The ordmap authors"
release = ordmap.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
default_role = "code"
nitpicky = True
suppress_warnings = ["myst.xref_missing"]
