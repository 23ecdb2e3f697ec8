"""How Sphinx builds the site: `make docs`. Nothing is fetched from the network."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]
# The kernel that runs the notebook reads this checkout too, and is quiet.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kbptt  # noqa: E402

project = "kbptt"
author = "The kbptt authors"
version = release = kbptt.__version__
copyright = "the kbptt authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "api",
    "code_links",
    "root_pages",
    "programs",
]
exclude_patterns = ["_ext", "_static", "images", "README.md"]  # README.md: for Git hosts

# Markdown.
myst_enable_extensions = ["deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "none"

# The notebook is run when the site is built, and again only once it has changed.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # what TensorFlow logs as it starts
nb_execution_in_temp = True

# The API.
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = True
toc_object_entries_show_parents = "hide"
viewcode_follow_imported_members = True
viewcode_line_numbers = True
nitpicky = True
# Names of other packages have no page here; none is looked up on the network.
nitpick_ignore_regex = [(r"py:.*", r"(?!kbptt\.).*")]

# The look.
html_theme = "furo"
html_title = f"kbptt {version}"
html_baseurl = "https://kbptt.readthedocs.io/"
html_static_path = ["_static", "images"]  # PyPI shows those of the README from there
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
