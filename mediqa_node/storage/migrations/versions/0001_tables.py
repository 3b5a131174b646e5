"""All tables of version 0.2. Later versions add migrations; this one never changes."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    _create_acquisitions()
    _create_assessments()
    _create_associations()
    _create_companion_deliveries()
    _create_companions()
    _create_constancy_checks()
    _create_deliveries()
    _create_dose_events()
    _create_frame_techniques()
    _create_patch_maps()
    _create_patient_links()
    _create_phantom_measurements()
    _create_promotions()
    _create_rating_imports()
    _create_rejected_instances()
    _create_reports()
    _create_senders()
    _create_series()
    _create_shadow_scores()
    _create_sr_series_numbers()
    _create_techniques()
    _create_instances()
    _create_ratings()


# fmt: off

def _create_acquisitions() -> None:
    op.create_table(
        "acquisitions",
        sa.Column("acquisition_key", sa.String(200), nullable=False, comment="shared by its reconstructions"),
        sa.Column("series_instance_uid", sa.String(64), nullable=False, comment="the one that is scored"),
        sa.PrimaryKeyConstraint("acquisition_key", name=op.f("pk_acquisitions")),
    )


def _create_assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("quality", sa.Float, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("trained", sa.Boolean, nullable=False, comment="false: seeded weights, the score has no meaning"),
        sa.Column("assessment", sa.JSON, nullable=False),
        sa.Column("assessed_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", "revision", name=op.f("pk_assessments")),
    )


def _create_associations() -> None:
    op.create_table(
        "associations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("released", sa.Boolean, comment="ended by A-RELEASE, not by an abort or a lost connection"),
        sa.Column("last_series_uid", sa.String(64), comment="the series it is sending, or sent last"),
        sa.Column("last_instance_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )


def _create_companion_deliveries() -> None:
    op.create_table(
        "companion_deliveries",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False, comment="DIMSE status: stored"),
        sa.Column("sent_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "destination", name=op.f("pk_companion_deliveries")),
    )


def _create_companions() -> None:
    op.create_table(
        "companions",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False, comment="of the images"),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("companion_series_instance_uid", sa.String(64), nullable=False),
        sa.Column("instance_number", sa.Integer, nullable=False),
        sa.Column("deflated", sa.LargeBinary, comment="Part 10, zlib; built once, never again; null: after retention"),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_companions")),
    )
    op.create_index(op.f("ix_companions_companion_series_instance_uid"), "companions", ["companion_series_instance_uid"], unique=False)
    op.create_index(op.f("ix_companions_series_instance_uid"), "companions", ["series_instance_uid"], unique=False)


def _create_constancy_checks() -> None:
    op.create_table(
        "constancy_checks",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("checked_at", sa.Float, nullable=False),
        sa.Column("software_version", sa.String(32), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("execution", sa.String(64), nullable=False),
        sa.Column("libraries", sa.Text, nullable=False, comment="versions that a score rests on, and the processor"),
        sa.Column("scores", sa.JSON, nullable=False, comment="raw score of each reference series"),
        sa.Column("expected", sa.JSON, nullable=False, comment="what they were held against"),
        sa.Column("compared_with", sa.String(8), nullable=False, comment="card, first or nothing"),
        sa.Column("drift", sa.Float, comment="largest difference; null: a series was not scored"),
        sa.Column("bound", sa.Float, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("problem", sa.Text, comment="why the reference set could not be scored"),
        sa.Column("refusals", sa.JSON, nullable=False, comment="why a reference series has no score"),
        sa.Column("made_by", sa.String(8), nullable=False, comment="worker or command"),
        sa.Column("acknowledged_at", sa.Float),
        sa.Column("acknowledged_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_constancy_checks")),
    )
    op.create_index(op.f("ix_constancy_checks_checked_at"), "constancy_checks", ["checked_at"], unique=False)
    op.create_index(op.f("ix_constancy_checks_weights_sha256"), "constancy_checks", ["weights_sha256"], unique=False)


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.series.DeliveryState"),
        sa.Column("reason_code", sa.String(32), comment="domain.series.DeliveryReason"),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("wait_for_study_until", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("job", sa.String(100), comment="the durable job that works on it, if any"),
        sa.Column("jobs", sa.Integer, nullable=False, comment="jobs so far; makes each job's name its own"),
        sa.Column("report_sop_instance_uid", sa.String(64)),
        sa.Column("status", sa.Integer, comment="DIMSE status of the last attempt"),
        sa.Column("message", sa.Text, comment="detail of the reason, for people"),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("done_at", sa.Float),
        sa.Column("companions_at", sa.Float, comment="when a sent report's companions are tried; null: over"),
        sa.Column("companions", sa.String(12), comment="domain.series.CompanionState; null: none are wanted"),
        sa.Column("companions_note", sa.Text, comment="what is missing of them, for people"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("series_instance_uid", "revision", "destination", name=op.f("uq_deliveries_series_instance_uid_revision_destination")),
    )
    op.create_index(op.f("ix_deliveries_companions_at"), "deliveries", ["companions_at"], unique=False)
    op.create_index(op.f("ix_deliveries_series_instance_uid"), "deliveries", ["series_instance_uid"], unique=False)
    op.create_index(op.f("ix_deliveries_state"), "deliveries", ["state"], unique=False)


def _create_dose_events() -> None:
    op.create_table(
        "dose_events",
        sa.Column("irradiation_event_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("irradiation_event_uid", name=op.f("pk_dose_events")),
    )


def _create_frame_techniques() -> None:
    op.create_table(
        "frame_techniques",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("frame_number", sa.Integer),
        sa.Column("z_mm", sa.Float),
        sa.Column("tube_current_ma", sa.Float),
        sa.Column("tube_charge_mas", sa.Float),
        sa.Column("field_strength_t", sa.Float),
        sa.Column("ctdi_vol_mgy", sa.Float),
        sa.Column("source", sa.String(40)),
        sa.Column("candidates", sa.JSON, nullable=False),
        sa.Column("flags", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_frame_techniques")),
    )
    op.create_index(op.f("ix_frame_techniques_series_instance_uid"), "frame_techniques", ["series_instance_uid"], unique=False)


def _create_patch_maps() -> None:
    op.create_table(
        "patch_maps",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("npz", sa.LargeBinary, nullable=False, comment="patch scores and weights of the primary stack's views"),
        sa.PrimaryKeyConstraint("series_instance_uid", "revision", name=op.f("pk_patch_maps")),
    )


def _create_patient_links() -> None:
    op.create_table(
        "patient_links",
        sa.Column("link", sa.String(64), nullable=False, comment="pseudonym of an acquisition or of pixels"),
        sa.Column("patient_key", sa.String(64), nullable=False, comment="pseudonym"),
        sa.Column("first_seen", sa.Float, nullable=False, comment="when the first of the patient's series came"),
        sa.PrimaryKeyConstraint("link", "patient_key", name=op.f("pk_patient_links")),
    )


def _create_phantom_measurements() -> None:
    op.create_table(
        "phantom_measurements",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("station_name", sa.String(16), nullable=False),
        sa.Column("rule", sa.String(64), nullable=False, comment="the site rule that named it a phantom"),
        sa.Column("acquired_at", sa.String(32), nullable=False, comment="acquisition date and time as recorded"),
        sa.Column("mean", sa.Float, nullable=False),
        sa.Column("noise", sa.Float, nullable=False),
        sa.Column("uniformity", sa.Float, nullable=False),
        sa.Column("measurement", sa.JSON, nullable=False, comment="the whole measurement, slice by slice"),
        sa.Column("measured_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_phantom_measurements")),
    )


def _create_promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("action", sa.String(8), nullable=False, comment="promote, rollback, shadow or unshadow"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("from_name", sa.String(128)),
        sa.Column("from_sha256", sa.String(64)),
        sa.Column("from_card_sha256", sa.String(64)),
        sa.Column("to_name", sa.String(128), comment="null: what the configuration names, or no shadow"),
        sa.Column("to_sha256", sa.String(64)),
        sa.Column("to_card_sha256", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )


def _create_rating_imports() -> None:
    op.create_table(
        "rating_imports",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, comment="over the file and its layout"),
        sa.Column("imported_at", sa.Float, nullable=False),
        sa.Column("imported_by", sa.String(64), nullable=False),
        sa.Column("withdrawn_at", sa.Float, comment="since when its rows count no more"),
        sa.Column("withdrawn_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rating_imports")),
    )
    op.create_index(op.f("ix_rating_imports_sha256"), "rating_imports", ["sha256"], unique=False)


def _create_rejected_instances() -> None:
    op.create_table(
        "rejected_instances",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("code", sa.String(16), nullable=False, comment="title of the Key Object Selection, e.g. 113001"),
        sa.Column("note_sop_instance_uid", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_rejected_instances")),
    )
    op.create_index(op.f("ix_rejected_instances_series_instance_uid"), "rejected_instances", ["series_instance_uid"], unique=False)


def _create_reports() -> None:
    op.create_table(
        "reports",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False, comment="of the images"),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("sr_series_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_number", sa.Integer, nullable=False),
        sa.Column("instance_number", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("part10", sa.LargeBinary, nullable=False, comment="built once, never regenerated"),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_reports")),
        sa.UniqueConstraint("series_instance_uid", "revision", "sop_class_uid", name=op.f("uq_reports_series_instance_uid_revision_sop_class_uid")),
    )
    op.create_index(op.f("ix_reports_series_instance_uid"), "reports", ["series_instance_uid"], unique=False)


def _create_senders() -> None:
    op.create_table(
        "senders",
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("splits_series", sa.Boolean, nullable=False, comment="was seen to send one series over two associations"),
        sa.Column("longest_gap_s", sa.Float, nullable=False, comment="longest pause inside one series"),
        sa.Column("gaps_s", sa.JSON, nullable=False, comment="the last 200 pauses inside series"),
        sa.PrimaryKeyConstraint("calling_ae_title", name=op.f("pk_senders")),
    )


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason_code", sa.String(32), comment="domain.series.ReasonCode"),
        sa.Column("reason", sa.Text, comment="detail of the reason, for people"),
        sa.Column("scored_instead", sa.String(64), comment="the other reconstruction that is scored in its place"),
        sa.Column("completion", sa.String(16), comment="domain.series.Completed"),
        sa.Column("series_number", sa.Integer, comment="(0020,0011) of its first instance"),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("association_id", sa.String(32), nullable=False, comment="of the last instance"),
        sa.Column("n_associations", sa.Integer, nullable=False),
        sa.Column("longest_gap_s", sa.Float, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False, comment="(re)opened; `forced` counts from here"),
        sa.Column("last_instance_at", sa.Float, nullable=False),
        sa.Column("n_instances", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, comment="counts changes of content; jobs of an older one stop"),
        sa.Column("revision", sa.Integer, nullable=False, comment="of the last assessment; 0: none yet"),
        sa.Column("state_at", sa.Float, nullable=False),
        sa.Column("job", sa.String(100), comment="the durable job that works on it, if any"),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_series")),
    )
    op.create_index(op.f("ix_series_scored_instead"), "series", ["scored_instead"], unique=False)
    op.create_index(op.f("ix_series_state"), "series", ["state"], unique=False)
    op.create_index(op.f("ix_series_study_instance_uid"), "series", ["study_instance_uid"], unique=False)


def _create_shadow_scores() -> None:
    op.create_table(
        "shadow_scores",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("candidate_sha256", sa.String(64), nullable=False, comment="weights that were scored beside"),
        sa.Column("candidate_card_sha256", sa.String(64), nullable=False),
        sa.Column("candidate_name", sa.String(128), nullable=False),
        sa.Column("candidate_quality", sa.Float, comment="null: not scored"),
        sa.Column("candidate_verdict", sa.String(16)),
        sa.Column("reason", sa.Text, comment="why the candidate has no score"),
        sa.Column("weights_sha256", sa.String(64), nullable=False, comment="of the series' own assessment"),
        sa.Column("quality", sa.Float, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("station_name", sa.String(16), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("scored_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", "revision", "candidate_sha256", "candidate_card_sha256", name=op.f("pk_shadow_scores")),
    )


def _create_sr_series_numbers() -> None:
    op.create_table(
        "sr_series_numbers",
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("series_number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False, comment="of the images"),
        sa.PrimaryKeyConstraint("study_instance_uid", "series_number", name=op.f("pk_sr_series_numbers")),
        sa.UniqueConstraint("series_instance_uid", name=op.f("uq_sr_series_numbers_series_instance_uid")),
    )


def _create_techniques() -> None:
    op.create_table(
        "techniques",
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("label_name", sa.String(8)),
        sa.Column("label_value", sa.Float),
        sa.Column("source", sa.String(40)),
        sa.Column("eligible", sa.Boolean, nullable=False),
        sa.Column("exclusions", sa.JSON, nullable=False, comment="their codes"),
        sa.Column("flags", sa.JSON, nullable=False),
        sa.Column("technique", sa.JSON, nullable=False, comment="the whole Technique without its frames"),
        sa.Column("harvested_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_techniques")),
    )


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
        sa.Column("status", sa.String(12), nullable=False, comment="domain.series.InstanceStatus"),
        sa.Column("association_id", sa.String(32), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("path", sa.String(120), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("purged_at", sa.Float),
        sa.ForeignKeyConstraint(["series_instance_uid"], ["series.series_instance_uid"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("path", name=op.f("uq_instances_path")),
    )
    op.create_index("ix_instances_candidate", "instances", ["status"], unique=False, sqlite_where=sa.text("status = 'candidate'"), postgresql_where=sa.text("status = 'candidate'"))
    op.create_index(op.f("ix_instances_series_instance_uid"), "instances", ["series_instance_uid"], unique=False)
    op.create_index("ix_instances_sop_instance_uid_status", "instances", ["sop_instance_uid", "status"], unique=False)
    op.create_index("uq_instances_current", "instances", ["sop_instance_uid"], unique=True, sqlite_where=sa.text("status = 'current'"), postgresql_where=sa.text("status = 'current'"))


def _create_ratings() -> None:
    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("import_id", sa.Integer, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), comment="of the image that was rated; null: the series"),
        sa.Column("study_id", sa.String(64), nullable=False),
        sa.Column("criterion", sa.String(16), nullable=False),
        sa.Column("reader_id", sa.String(64), nullable=False, comment="a pseudonym"),
        sa.Column("score", sa.Float, nullable=False, comment="as given"),
        sa.Column("scale_min", sa.Float, nullable=False),
        sa.Column("scale_max", sa.Float, nullable=False),
        sa.Column("scale_direction", sa.String(16), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("read_at", sa.String(40)),
        sa.Column("experience_years", sa.Float),
        sa.Column("reader_group", sa.String(64)),
        sa.Column("display_window", sa.String(64)),
        sa.Column("confidence", sa.Float),
        sa.Column("usable", sa.Boolean),
        sa.Column("comment", sa.Text, comment="never leaves the node"),
        sa.ForeignKeyConstraint(["import_id"], ["rating_imports.id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ratings")),
    )
    op.create_index(op.f("ix_ratings_import_id"), "ratings", ["import_id"], unique=False)
    op.create_index(op.f("ix_ratings_series_instance_uid"), "ratings", ["series_instance_uid"], unique=False)
