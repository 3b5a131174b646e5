"""Alembic's entry: runs the migrations on the connection that `storage.migrate` hands over."""

from alembic import context

import mediqa_node.storage.backscore_tables
import mediqa_node.storage.cluster_tables
import mediqa_node.storage.commitment_tables
import mediqa_node.storage.correction_tables
import mediqa_node.storage.forward_tables
import mediqa_node.storage.health
import mediqa_node.storage.procedure_step_tables
import mediqa_node.storage.pull_tables
import mediqa_node.storage.query_tables
import mediqa_node.storage.rating_tables
import mediqa_node.storage.reading_tables
import mediqa_node.storage.trend_tables
import mediqa_node.storage.workbench_tables  # noqa: F401 (they add tables)
from mediqa_node.storage.tables import metadata

OWN_TABLES = set(metadata.tables)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    include_name=lambda name, kind, _parents: kind != "table" or name in OWN_TABLES,
)
with context.begin_transaction():
    context.run_migrations()
