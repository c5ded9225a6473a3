"""`python -m pixelpolicy` is the command `pixelpolicy`."""

from pixelpolicy.cli import app

app(prog_name="pixelpolicy")
