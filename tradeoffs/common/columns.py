"""A column that is put together of several: `columns: {text: "{title}: {abstract}"}` in params.yaml."""

import re

FIELD = re.compile(r"\{([^{}]+)\}")  # the name of a column, in a template
