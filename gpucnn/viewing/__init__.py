"""What `gpucnn view` writes: a model as one page that shows the output of every layer for an image.

graph.py: the model as nodes and arrays; pictures.py: the images that come along; writer.py: the page; page/: its HTML, CSS and JavaScript
"""

from gpucnn.viewing.pictures import Pictures
from gpucnn.viewing.writer import html, write

__all__ = ["Pictures", "html", "write"]
