"""The names that this implementation carries on the wire and into files (PS3.7 annex D.3.3.2)."""

IMPLEMENTATION_CLASS_UID = "2.25.213174894870184063412379046938402126117"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE_010"
