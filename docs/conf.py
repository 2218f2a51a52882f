"""Builds the documentation: sphinx-build docs build/docs."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

sys.path.insert(0, str(Path(__file__).parents[1]))  # reproductions and perf are named in examples

RESULTS = Path(__file__).parents[1] / "reproductions" / "results"

project = "avsi"
author = "The avsi authors"
copyright = "2026, the avsi authors"
version = release = version_of("avsi")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"avsi {version}"
html_static_path = ["_static"]
html_css_files = ["avsi.css"]
html_math_renderer = "mathml"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The notebook runs anew in every build, so its figures are those of the code beside them.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of libraries

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def show_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line as MathML, which browsers show without a script."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def show_display(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own as MathML."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def add_results(app: Any, page: str, source: list[str]) -> None:
    """Append the overview of reproductions and every committed summary to the page of results."""
    if page == "results":
        source[0] += "\n```{include} ../reproductions/README.md\n:heading-offset: 1\n```\n"
        first = ("split_mnist", "permuted_mnist", "imbalanced", "three_scenarios")
        summaries = sorted(RESULTS.glob("*/summary*.md"))
        for summary in sorted(summaries, key=lambda path: [not path.parent.name.startswith(name) for name in first]):
            path = f"../reproductions/results/{summary.parent.name}/{summary.name}"
            source[0] += f"\n```{{include}} {path}\n:heading-offset: 1\n:relative-images:\n```\n"


def setup(app: Any) -> None:
    """Register the formulas' renderer and what fills the page of results."""
    app.connect("source-read", add_results)
    app.add_html_math_renderer("mathml", (show_inline, None), (show_display, None))
