"""Configuration of Sphinx: ``make docs`` builds the pages into docs/_build/html."""

import inspect
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402

import fmi  # noqa: E402

# For the helps of the commands and the notebooks, which are run while the pages are built.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["COLUMNS"] = "88"

project = "fmi"
author = "fmi developers"
project_copyright = author
release = version = fmi.__version__

extensions = [
    "myst_nb",  # pages in Markdown, and the notebooks with what they show
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
exclude_patterns = ["_build"]
# claims.md is made by experiments.claims; until then, index.md lists a page that does not exist.
suppress_warnings = [] if (ROOT / "docs/claims.md").exists() else ["toc.not_readable"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# docs/notebooks is a link to experiments/notebooks, which are kept without output and run here.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # what libraries log about this machine, such as its fonts
nb_ipywidgets_js = {}  # a slider needs a kernel; and pages load nothing from elsewhere

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("NDArray", "Source", "Layers", "Filters", "Init")}
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

highlight_language = "text"
html_math_renderer = "mathml"
html_theme = "furo"
html_title = "fmi"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False


def _short(app, what, name, thing, options, signature, returns):  # noqa: ARG001
    """Show ``**keywords`` for the keywords that all functions share, which have their own page."""
    if what != "function" or not hasattr(thing, "__signature__"):
        return None
    own = inspect.signature(inspect.unwrap(thing))
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in own.parameters.values()
    ]
    return str(own.replace(parameters=plain, return_annotation=inspect.Signature.empty)), returns


def _inline(writer, node):
    """Write a formula as MathML, which browsers draw without a script from elsewhere."""
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _displayed(writer, node):
    formula = tex2mathml(node.astext()).replace("<math ", '<math display="block" ', 1)
    writer.body.append(f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


def setup(app):  # noqa: D103
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    app.connect("autodoc-process-signature", _short)
