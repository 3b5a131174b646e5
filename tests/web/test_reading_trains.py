"""The way from a reading study to the network: what readers gave is exported, and `mediqa-train finetune` takes it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command import invoke_in
from support.reading_room import Site

from mediqa_node.domain.access import Role
from mediqa_node.storage import reading


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_an_export_made_after_a_study_is_taken_by_finetune_as_it_is(tmp_path: Path):
    site = Site(tmp_path)
    site.phantoms(24, slices=7)
    curie, ada = site.person("curie", Role.PHYSICIST), site.person("ada", Role.READER)
    study = {"name": "Autumn", "points": "1 bad\n2 fair\n3 good", "criteria": ["overall", "noise"], "repeats": 20}
    curie.post("/reading/new", data=study)
    ada.post("/reading/1/start")
    with site.bench.database.read() as connection:
        me = reading.reader(connection, 1, "ada")
        assert me is not None
        places = reading.places(connection, me.id)
    for place in places:
        given = {"position": place.position, "overall": 1 + place.position % 3, "noise": 2, "comment": "mine alone"}
        assert ada.post("/reading/1/ratings", data=given).status_code == 303
    curie.post("/reading/1/close")
    assert curie.post("/reading/1/import").status_code == 303
    site.close()
    settings = {"node": {"data_dir": "var"}, "retention": {"low_water_bytes": 0}}
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))

    exported = invoke_in(tmp_path, "export", "out", "--payload", "npz")
    assert exported.returncode == 0, exported.stderr
    annotations = (tmp_path / "out" / "annotations.csv").read_text()
    with (tmp_path / "out" / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    line = [sys.executable, "-m", "training", "finetune", "out", "--out", "run", "--steps", "2", "--resplit", "1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)

    assert sum(bool(row["mos_norm"]) for row in rows) == 24
    assert annotations.count("higher_better") == 2 * len(places)
    assert "mine alone" not in annotations
    assert "reader-1" not in annotations, "readers and studies leave under keys"
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run").is_dir()
    assert "left out" not in done.stderr
