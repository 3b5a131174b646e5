"""`mediqa-node users`: people on the command line."""

import subprocess
import sys
import time
from pathlib import Path

from mediqa_node import config
from mediqa_node.composition import resources
from mediqa_node.domain.access import Role
from mediqa_node.storage import users


def test_a_new_password_unlocks_a_name_and_lets_nobody_back_who_was_disabled(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("{}\n")
    settings = config.load(tmp_path / "node.yaml", {})
    resources.prepare(settings)
    database = resources.open_database(settings)
    with database.write() as connection:
        users.add(connection, "curie", Role.PHYSICIST, "old", by="test", at=1.0)
        curie = users.find(connection, "curie")
        assert curie is not None
        users.change(connection, curie.id, at=2.0, locked_until=time.time() + 99, disabled_at=2.0)

    done = subprocess.run(
        [sys.executable, "-m", "mediqa_node", "users", "password", "curie", "--password-stdin"],
        cwd=tmp_path, input="correct horse battery\n", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    with database.read() as connection:
        changed = users.find(connection, "curie")
    assert changed is not None
    assert changed.password != "old"
    assert (changed.locked_until, changed.disabled_at) == (None, 2.0)
    database.close()
