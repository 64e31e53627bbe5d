"""Write the playroom to disk: web shards, and downstream sets in their real layouts."""

from cliptex.playroom.export.home import HomeSizes, export_home
from cliptex.playroom.export.web import export_web, iter_renderings

__all__ = ["HomeSizes", "export_home", "export_web", "iter_renderings"]
