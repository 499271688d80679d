"""How Sphinx makes the site of these pages: `make docs`. Nothing is downloaded, warnings are errors.

The pages are Markdown, which reads the same in a repository's browser; _toc.yml says what is where on the
site. The reference is made of the docstrings of the package that is installed.
"""

from importlib.metadata import version as _version_of

project = "numpush"
version = release = _version_of("numpush")
copyright = "the numpush authors, under the MIT licence"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_external_toc",
]

myst_heading_anchors = 3  # wire.md#tipc, as in a repository's browser

# A name in `backticks` in a docstring is a reference, and must be one.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(\w+\.)*[A-Z]\w+(Error|Exception|Pool)"),  # bases of our errors: Python's own
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings tell shapes, units and what is optional
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "numpush"
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"
