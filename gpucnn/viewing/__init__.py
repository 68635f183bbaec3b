"""The page that `gpucnn view` writes: a model, with the output of every layer for an image.

graph.py: the model as nodes and arrays; pictures.py: the images on the page; writer.py: the page; page/: its HTML, CSS and JavaScript
"""

from gpucnn.viewing.pictures import Pictures
from gpucnn.viewing.writer import html, write

__all__ = ["Pictures", "html", "write"]
