"""The tables. Times are seconds since 1970-01-01 UTC, so that every timer is plain arithmetic.

An instance row never changes its file; a corrected or conflicting copy is a further row with the
same SOP Instance UID and another `status`. Exactly one row per UID is `current`.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UID = _UID = sa.String(64)
OPEN_COPIES = "status IN ('conflict', 'disputed')"
"""The condition of a partial index, word for word: a query has to state it so."""

_CANDIDATE = sa.text("status = 'candidate'")
_KEPT, _PURGED = sa.text("purged_at IS NULL"), sa.text("purged_at IS NOT NULL")

associations = sa.Table(
    "associations",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("opened_at", sa.Float, nullable=False),
    sa.Column("closed_at", sa.Float),
    sa.Column("released", sa.Boolean, comment="ended by A-RELEASE, not by an abort or a lost connection"),
    sa.Column("last_series_uid", _UID, comment="the series it is sending, or sent last"),
    sa.Column("last_instance_at", sa.Float),
    sa.Column("host_id", sa.String(32), comment="whose receiver has it; null: of a node on one host"),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False, index=True),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("reason_code", sa.String(32), comment="domain.series.ReasonCode"),
    sa.Column("reason", sa.Text, comment="detail of the reason, for people"),
    sa.Column("scored_instead", _UID, index=True, comment="the other reconstruction that is scored in its place"),
    sa.Column("completion", sa.String(16), comment="domain.series.Completed"),
    sa.Column("series_number", sa.Integer, comment="(0020,0011) of its first instance"),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("called_ae_title", sa.String(16), nullable=False, server_default="", comment="by its first instance"),
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
    sa.Column("pulled", sa.Boolean, nullable=False, server_default=sa.false(), comment="this node moved it here"),
)

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("series_instance_uid", _UID, sa.ForeignKey("series.series_instance_uid"), nullable=False, index=True),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("status", sa.String(12), nullable=False, comment="domain.series.InstanceStatus"),
    sa.Column("association_id", sa.String(32), nullable=False),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("peer_address", sa.String(64), nullable=False, server_default=""),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("path", sa.String(120), nullable=False, unique=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("purged_at", sa.Float),
    sa.Column(
        "identity", sa.JSON(none_as_null=True), comment="domain.identity.Identity; null: received before it was kept"
    ),
    sa.Column("content_digest", sa.String(64), comment="of geometry and pixels, or of a document; outlives the file"),
    sa.Column("unread", sa.Boolean, nullable=False, server_default=sa.false(), comment="a document to be read yet"),
    sa.Column("move_originator", sa.String(16), comment="AE that had it moved here; null: nobody"),
    sa.Index("ix_instances_sop_instance_uid_status", "sop_instance_uid", "status"),
    sa.Index("ix_instances_candidate", "status", sqlite_where=_CANDIDATE, postgresql_where=_CANDIDATE),
    sa.Index("ix_instances_kept", "size_bytes", sqlite_where=_KEPT, postgresql_where=_KEPT),
    sa.Index("ix_instances_purged", "purged_at", sqlite_where=_PURGED, postgresql_where=_PURGED),
    sa.Index(
        "ix_instances_unread",
        "unread",
        sqlite_where=sa.text("unread = 1"),  # as a query spells it: else no index serves it
        postgresql_where=sa.text("unread"),
    ),
    sa.Index(
        "ix_instances_open",
        "series_instance_uid",
        "status",
        sqlite_where=sa.text(OPEN_COPIES),
        postgresql_where=sa.text(OPEN_COPIES),
    ),
    sa.Index(
        "uq_instances_current",
        "sop_instance_uid",
        unique=True,
        sqlite_where=sa.text("status = 'current'"),
        postgresql_where=sa.text("status = 'current'"),
    ),
)

acquisitions = sa.Table(
    "acquisitions",
    metadata,
    sa.Column("acquisition_key", sa.String(200), primary_key=True, comment="shared by its reconstructions"),
    sa.Column("series_instance_uid", _UID, nullable=False, comment="the one that is scored"),
)

sender_addresses = sa.Table(
    "sender_addresses",
    metadata,
    sa.Column("calling_ae_title", sa.String(16), primary_key=True),
    sa.Column("address", sa.String(64), primary_key=True),
    sa.Column("first_seen", sa.Float, nullable=False),
)

senders = sa.Table(
    "senders",
    metadata,
    sa.Column("calling_ae_title", sa.String(16), primary_key=True),
    sa.Column("splits_series", sa.Boolean, nullable=False, comment="was seen to send one series over two associations"),
    sa.Column("longest_gap_s", sa.Float, nullable=False, comment="longest pause inside one series"),
    sa.Column("gaps_s", sa.JSON, nullable=False, comment="the last 200 pauses inside series"),
)

techniques = sa.Table(
    "techniques",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("label_name", sa.String(8)),
    sa.Column("label_value", sa.Float),
    sa.Column("source", sa.String(40)),
    sa.Column("eligible", sa.Boolean, nullable=False),
    sa.Column("exclusions", sa.JSON, nullable=False, comment="their codes"),
    sa.Column("flags", sa.JSON, nullable=False),
    sa.Column("technique", sa.JSON, nullable=False, comment="the whole Technique without its frames"),
    sa.Column("harvested_at", sa.Float, nullable=False),
)

frame_techniques = sa.Table(
    "frame_techniques",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("frame_number", sa.Integer),
    sa.Column("z_mm", sa.Float),
    sa.Column("tube_current_ma", sa.Float),
    sa.Column("tube_charge_mas", sa.Float),
    sa.Column("field_strength_t", sa.Float),
    sa.Column("ctdi_vol_mgy", sa.Float),
    sa.Column("source", sa.String(40)),
    sa.Column("candidates", sa.JSON, nullable=False),
    sa.Column("flags", sa.JSON, nullable=False),
)

dose_events = sa.Table(
    "dose_events",
    metadata,
    sa.Column("irradiation_event_uid", _UID, primary_key=True),
    sa.Column("study_instance_uid", _UID, primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), primary_key=True),
    sa.Column("event", sa.JSON, nullable=False),
)

rejected_instances = sa.Table(
    "rejected_instances",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),
    sa.Column("note_sop_instance_uid", _UID, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False, comment="of the images, as the note states it"),
    sa.Column("code", sa.String(16), nullable=False, comment="title of the Key Object Selection, e.g. 113001"),
    sa.Column("calling_ae_title", sa.String(16), primary_key=True, comment="of the note"),
    sa.Column("peer_address", sa.String(64), primary_key=True, comment="of the note"),
    sa.Column("identity", sa.JSON, comment="of the note; null: received before it was kept"),
)

assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("quality", sa.Float, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("weights_sha256", sa.String(64), nullable=False),
    sa.Column("trained", sa.Boolean, nullable=False, comment="false: seeded weights, the score has no meaning"),
    sa.Column("assessment", sa.JSON, nullable=False),
    sa.Column("assessed_at", sa.Float, nullable=False),
)

patch_maps = sa.Table(
    "patch_maps",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("npz", sa.LargeBinary, nullable=False, comment="patch scores and weights of the primary stack's views"),
)

companions = sa.Table(
    "companions",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True, comment="of the images"),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("companion_series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("instance_number", sa.Integer, nullable=False),
    sa.Column("deflated", sa.LargeBinary, comment="Part 10, zlib; built once, never again; null: after retention"),
    sa.Column("created_at", sa.Float, nullable=False),
)

companion_deliveries = sa.Table(
    "companion_deliveries",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),
    sa.Column("destination", sa.String(64), primary_key=True),
    sa.Column("status", sa.Integer, nullable=False, comment="DIMSE status: stored"),
    sa.Column("sent_at", sa.Float, nullable=False),
)

constancy_checks = sa.Table(
    "constancy_checks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("checked_at", sa.Float, nullable=False, index=True),
    sa.Column("software_version", sa.String(32), nullable=False),
    sa.Column("weights_sha256", sa.String(64), nullable=False, index=True),
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
    sa.Column("host_id", sa.String(32), comment="that checked; null: of a node on one host"),
)

phantom_measurements = sa.Table(
    "phantom_measurements",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("station_name", sa.String(16), nullable=False),
    sa.Column("rule", sa.String(64), nullable=False, comment="the site rule that named it a phantom"),
    sa.Column("acquired_at", sa.String(32), nullable=False, comment="acquisition date and time as recorded"),
    sa.Column("mean", sa.Float, nullable=False),
    sa.Column("noise", sa.Float, nullable=False),
    sa.Column("uniformity", sa.Float, nullable=False),
    sa.Column("measurement", sa.JSON, nullable=False, comment="the whole measurement, slice by slice"),
    sa.Column("measured_at", sa.Float, nullable=False),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
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
)

shadow_scores = sa.Table(
    "shadow_scores",
    metadata,
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("candidate_sha256", sa.String(64), primary_key=True, comment="weights that were scored beside"),
    sa.Column("candidate_card_sha256", sa.String(64), primary_key=True),
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
)

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True, comment="of the images"),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("sr_series_instance_uid", _UID, nullable=False),
    sa.Column("series_number", sa.Integer, nullable=False),
    sa.Column("instance_number", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("part10", sa.LargeBinary, nullable=False, comment="built once, never regenerated"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("series_instance_uid", "revision", "sop_class_uid"),
)

sr_series_numbers = sa.Table(
    "sr_series_numbers",
    metadata,
    sa.Column("study_instance_uid", _UID, primary_key=True),
    sa.Column("series_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("series_instance_uid", _UID, nullable=False, unique=True, comment="of the images"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("destination", sa.String(64), nullable=False),
    sa.Column("state", sa.String(12), nullable=False, index=True, comment="domain.series.DeliveryState"),
    sa.Column("reason_code", sa.String(32), comment="domain.series.DeliveryReason"),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("wait_for_study_until", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("job", sa.String(100), comment="the durable job that works on it, if any"),
    sa.Column("jobs", sa.Integer, nullable=False, comment="jobs so far; makes each job's name its own"),
    sa.Column("report_sop_instance_uid", _UID),
    sa.Column("status", sa.Integer, comment="DIMSE status of the last attempt"),
    sa.Column("message", sa.Text, comment="detail of the reason, for people"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("done_at", sa.Float),
    sa.Column("companions_at", sa.Float, index=True, comment="when a sent report's companions are tried; null: over"),
    sa.Column("companions", sa.String(12), comment="domain.series.CompanionState; null: none are wanted"),
    sa.Column("companions_note", sa.Text, comment="what is missing of them, for people"),
    sa.Column("unanswered_since", sa.Float, comment="first C-FIND in a row that failed; null: the last was answered"),
    sa.UniqueConstraint("series_instance_uid", "revision", "destination"),
)

patient_links = sa.Table(
    "patient_links",
    metadata,
    sa.Column("link", sa.String(64), primary_key=True, comment="pseudonym of an acquisition or of pixels"),
    sa.Column("patient_key", sa.String(64), primary_key=True, comment="pseudonym"),
    sa.Column("first_seen", sa.Float, nullable=False, comment="when the first of the patient's series came"),
)
