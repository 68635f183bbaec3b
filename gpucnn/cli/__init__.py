"""The command line `gpucnn`, with one file per command.

Errors are reported in one sentence on stderr, with exit status 2; GPUCNN_DEBUG=1 shows the traceback.
"""

from gpucnn.cli.program import app, main

# A command is a file in this folder and a line here; the help lists them in this order.
# isort: off
from gpucnn.cli import train as train
from gpucnn.cli import evaluate as evaluate
from gpucnn.cli import predict as predict
from gpucnn.cli import view as view
from gpucnn.cli import export as export
from gpucnn.cli import import_ as import_
from gpucnn.cli import profile as profile
from gpucnn.cli import tune as tune
from gpucnn.cli import info as info
# isort: on

__all__ = ["app", "main"]
