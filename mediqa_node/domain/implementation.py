"""Implementation class UID and version name (PS3.7 annex D.3.3.2)."""

from mediqa_node import __version__

IMPLEMENTATION_CLASS_UID = "2.25.213174894870184063412379046938402126117"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE_" + __version__.replace(".", "")
