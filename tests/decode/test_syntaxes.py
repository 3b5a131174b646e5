"""What the receiver may offer is what is decoded here."""

import subprocess
import sys

from pydicom.pixels import get_decoder
from pydicom.uid import UID, AllTransferSyntaxes, JPEGExtended12Bit

from mediqa_node.decode import openjpeg_plugin
from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes


def test_the_table_is_what_pydicom_finds_decodable():
    openjpeg_plugin.register()
    found = set()
    for uid in AllTransferSyntaxes:
        try:
            if get_decoder(uid).is_available:
                found.add(str(uid))
        except NotImplementedError:
            continue

    assert set(decodable_transfer_syntaxes()) == found - {JPEGExtended12Bit}


def test_every_syntax_is_a_registered_transfer_syntax_and_named_once():
    offered = decodable_transfer_syntaxes()

    assert len(set(offered)) == len(offered)
    assert all(UID(uid).is_transfer_syntax for uid in offered)


def test_asking_loads_neither_numpy_nor_a_codec():
    code = (
        "import sys; from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes as ask; assert ask();"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'pydicom', 'gdcm', 'PIL', 'openjpeg', 'jpeg_ls')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=600).returncode == 0
