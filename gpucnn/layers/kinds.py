"""All layers. A file of layers is a line here; the names in its `__all__` are then gpucnn's, and files name their classes."""

# isort: off
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
