"""All layers. Each file of layers has a line here; the names in its `__all__` are exported by gpucnn and used in model files."""

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
