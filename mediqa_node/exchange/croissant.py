"""Machine-readable description of an export: Croissant 1.0 JSON-LD, without mlcroissant, which would pull in 343 MB."""

from collections.abc import Mapping, Sequence
from typing import Any

from mediqa_node.exchange.columns import MANIFEST, SLICES, Column

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "md5": "cr:md5",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "source": "cr:source",
}
_TYPES = {"str": "sc:Text", "int": "sc:Integer", "float": "sc:Float", "bool": "sc:Boolean"}
_TABLES = {"manifest.csv": "text/csv", "slices.parquet": "application/vnd.apache.parquet"}


def croissant(export_id: str, sums: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of an export.

    Args:
        sums: SHA-256 by relative path of the files written so far.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": f"mediqa-node-export-{export_id[:12]}",
        "description": "Series of CT, MR and fundus images with the physical parameters of their acquisition, "
        "under keyed pseudonyms. Research use only.",
        "version": "1.0.0",
        "rai:dataCollection": "Received by a DICOM node from scanners of one site; parameters read from headers.",
        "rai:personalSensitiveInformation": provenance["deidentification"]["statement"],
        "rai:dataLimitations": "With automatic exposure control more mAs is not better quality; see README.md.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": name,
                "encodingFormat": encoding,
                "sha256": sums[name],
            }
            for name, encoding in _TABLES.items()
        ],
        "recordSet": [_record_set("series", "manifest.csv", MANIFEST), _record_set("slices", "slices.parquet", SLICES)],
    }


def _record_set(name: str, file: str, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column.name}",
                "name": column.name,
                "description": f"{column.meaning} [{column.unit}]" if column.unit else column.meaning,
                "dataType": _TYPES[column.kind],
                "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
            }
            for column in columns
        ],
    }
