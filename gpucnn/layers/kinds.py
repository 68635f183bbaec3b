"""All layers. The names in the `__all__` of the other files in this folder are exported by gpucnn and used in model files.

A file is found without a line here. The lines are for type checkers and editors, which run nothing; `python docs/make_reference.py` adds
missing ones.
"""

# isort: off
from gpucnn.layers.blocks import *
from gpucnn.layers.conv import *
from gpucnn.layers.pool import *
from gpucnn.layers.flatten import *
from gpucnn.layers.dense import *
from gpucnn.layers.dropout import *
from gpucnn.layers.norm import *
from gpucnn.layers.separable import *
from gpucnn.layers.transposed import *
from gpucnn.layers.local import *
from gpucnn.layers.pad import *
from gpucnn.layers.activation import *
from gpucnn.layers.containers import *
from gpucnn.layers.input import *

from gpucnn.layers import base as _base
from gpucnn.names import modules_in as _modules_in

for _module in _modules_in("gpucnn.layers"):
    if _module is not _base:
        globals().update({name: getattr(_module, name) for name in getattr(_module, "__all__", ())})
