"""How the documentation is built; works without a network."""

from importlib.metadata import version as installed_version

project = "ERP Provider Layer"
author = "the maintainers"
copyright = author
release = installed_version("erp-provider-layer")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False
