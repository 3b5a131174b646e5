"""Human-readable description of an export: the README.md of its folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mediqa_node.domain.export import SPLITS, Excluded, Row
from mediqa_node.exchange.columns import MANIFEST

_COUNTED = ("modality", "region", "type", "manufacturer", "kvp", "b0_nominal", "label_name", "label_quality")

_TEXT = """# Export {export_id:.12}

{n_series} series of {n_patients} patients, payload `{payload}`, by mediqa-node {version}. **Research use only, not for
diagnosis.** `export_id` {export_id}. `sha256sum -c SHA256SUMS` says whether a file has changed.

## What it is for
Training and testing of image quality networks. Stage 1 learns the physical label (`label_value`, `label_norm`), stage 2
ratings (`mos_norm`), if the export has any.

## Labels
CT: effective tube charge, mA.s, median over slices (`mas_source` names the rule, every candidate stands beside it). MR:
nominal field strength, T. `label_norm` is `label_value` through `normalizer.json`, fitted on the training split.
**With automatic exposure control large patients get more mAs at equal or worse noise: within one protocol, more mAs is
not better quality.** Hold a model against scanner and kVp alone before you believe it.

## Splits
8 : 1 : 1 by patient, drawn from the patient's key; no later export moves a patient. Reconstructions of one acquisition
and identical images stay together. The paper says 8 : 1 : 1 and not by what. `splits.json` has leave-scanner-out too.

| split | series | patients |
|---|---|---|
{splits}

## What is in it
{counts}

## What was left out
{excluded}

`excluded.csv` has each series with its reasons.

## De-identification
{deid}

## Licence
The site that exported it decides, and has said nothing here.

## Columns
| column | unit | meaning |
|---|---|---|
{columns}
"""


def dataset_card(
    export_id: str, rows: Sequence[Row], excluded: Sequence[Excluded], provenance: Mapping[str, Any]
) -> str:
    """Return the card as Markdown."""
    reasons = Counter(reason for one in excluded for reason in one.reasons)
    return _TEXT.format(
        export_id=export_id,
        n_series=len(rows),
        n_patients=len({row["patient_key"] for row in rows}),
        payload=provenance["request"]["payload"],
        version=provenance["node_version"],
        splits="\n".join(_split(rows, split) for split in SPLITS),
        counts="\n".join(f"- {name}: {_counted(rows, name)}" for name in _COUNTED),
        excluded="\n".join(f"- {reason}: {n}" for reason, n in sorted(reasons.items())) or "nothing",
        deid=provenance["deidentification"]["statement"],
        columns="\n".join(f"| {c.name} | {c.unit} | {c.meaning} |" for c in MANIFEST),
    )


def _split(rows: Sequence[Row], split: str) -> str:
    there = [row for row in rows if row["split"] == split]
    return f"| {split} | {len(there)} | {len({row['patient_key'] for row in there})} |"


def _counted(rows: Sequence[Row], name: str) -> str:
    counts = Counter(row.get(name) for row in rows)
    found = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return ", ".join(f"{'–' if value is None else value} ({n})" for value, n in found)
