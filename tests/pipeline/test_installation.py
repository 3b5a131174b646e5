"""What a node keeps of itself: who it is."""

import os
from pathlib import Path

import pytest

from mediqa_node.composition import data_folder
from mediqa_node.config import Settings


def test_the_identity_of_an_installation_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({"node": {"data_dir": "var"}, "file": tmp_path / "node.yaml"})

    def pulled(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", pulled)
    with pytest.raises(KeyboardInterrupt):
        data_folder.identity(settings)
    monkeypatch.undo()

    made = data_folder.identity(settings)

    assert made == data_folder.identity(settings)
    assert made["device_uid"].startswith("2.25.")
