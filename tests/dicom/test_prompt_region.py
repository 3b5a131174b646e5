"""The region from headers: right or unknown, never wrong; in seven languages, with every contradiction on record."""

import pytest
from pydicom import Dataset
from support.header_builders import CT, MR, OP, dataset, multi_frame, series

from mediqa_node.dicom.prompts import default_rules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.prompt import Prompt

RULES = default_rules()
LONG = [[0, 0, 40.0 * index] for index in range(8)]
"""Positions of a stack that reaches over several regions, mm."""


def prompt(headers: list[Dataset]) -> Prompt:
    return prompt_from_header(headers, assemble_stacks(headers)[0], RULES)


def region(sop_class: str = CT, **values: object) -> tuple[str, str]:
    term = prompt(series(sop_class, **values)).region
    return term.value, term.source


def long_region(**values: object) -> str:
    return region(each_ImagePositionPatient=LONG, **values)[0]


def decided(sop_class: str = CT, **values: object) -> tuple[str, tuple[str, ...]]:
    found = prompt(series(sop_class, **values))
    return found.region.value, found.conflicts


# ── words ────────────────────────────────────────────────────────────────────

WORDS = {
    "brain": (
        "Gehirn nativ", "BRAIN_3D", "brain2", "cerebral perfusion", "ENCEPHALE", "Encéphale", "encefalo", "cerebro",
        "Cerveau", "fMRI_rest", "ep2d_bold_mb6", "Hirnstamm", "MPRAGE", "hersenen", "CerebrumNativ",
    ),
    "head": (
        "TDM TETE", "Tête", "CRANE", "Crâne sans IV", "cráneo", "CRANIO", "Schädel", "SCHAEDEL", "schadel", "Kopf",
        "KopfNativ", "CT_HEAD2", "HEADACHE", "orbita", "SINUS", "nasennebenhöhlen", "NNH", "Felsenbein",
        "TEMPORAL BONE", "inner ear", "IAC", "cabeza", "cabeça", "CCT", "cCT nativ", "mandibula", "schedel", "testa",
        "Gesichtsschädel", "SKULL BASE", "vertex",
    ),
    "neck": (
        "NECK", "Hals", "Halsweichteile", "HALS_KM", "cuello", "pescoço", "cou", "collo", "thyroid", "CTA CAROTID",
        "larynx", "Neck2", "soft tissue neck",
    ),
    "chest": (
        "CHEST", "1CHEST_ROUTINE", "THORAX", "Thorakal", "ThoraxRoutine", "AThoraxRoutine", "Lunge", "LUNGEN",
        "poumon", "torace", "tórax", "PULMONARY", "polmone", "longen", "HRCT", "Brustkorb", "mediastin",
        "LUNG BIOPSY", "Low dose lung", "Chest5mm", "Pneumothorax", "CTPA",
    ),
    "breast": (
        "BREAST", "MAMMA", "mammae", "MR BREAS, UNIT", "Brust bds", "seno", "sein", "borst",
    ),
    "heart": (
        "CARDIAC", "Cardio", "CORONARY CTA", "coronaires", "Herz", "HEART", "coeur", "cœur", "cuore", "corazón",
        "coração", "cine_tf2d_sax", "CINE 4CH", "FIESTA short axis", "MYOCARDIAL", "Myokard", "2_chamber",
    ),
    "abdomen": (
        "ABDOMEN", "ABDOMINAL", "ABD", "abd_3mm", "Oberbauch", "UNTERBAUCH", "LIVER", "Leber", "foie", "hígado",
        "fegato", "HEPATIC", "KIDNEY", "Niere", "Nebenniere", "rénal", "ADRENAL", "PANCREAS", "Pankreas", "MRCP",
        "COLON", "COLONOGRAPHY", "UROGRAPHY", "CT_UROGRAM", "Gallbladder", "ENTEROGRAPHY", "spleen", "Milz",
        "LUNG BASES ABDOMEN",
    ),
    "pelvis": (
        "PELVIS", "pelvien", "pelvique", "Becken", "bassin", "bacino", "PROSTATE", "prostata", "prostaat kanker",
        "RECTUM", "Rektum", "endorectal coil", "UTERUS", "BLADDER", "bekken", "PELVI",
    ),
    "spine": (
        "COLONNE", "COLONNE LOMBAIRE", "colonne vertébrale", "Colonna", "COLONNA VERTEBRALE", "columna",
        "COLUMNA LUMBAR", "coluna", "rachis", "RACHIS CERVICAL", "HWS", "LWS", "BWS", "HWSnativ", "lws2",
        "Halswirbelsäule", "Halswirbelsaeule", "Brustwirbelsäule", "WIRBELSÄULE", "Lendenwirbel", "C-SPINE", "CSPINE",
        "L_SPINE", "Thoracic spine", "T-Spine", "LUMBAR", "lombare", "lumbosacral", "sacrum", "CERVICAL",
        "cervical spine", "thoracolumbar", "spinal canal", "MYELOGRAM", "wervelkolom", "CWK", "Bandscheibe",
    ),
    "extremity": (
        "KNEE", "T2_TSE_TRA_KNEE2", "Knie", "Kniegelenk", "genou", "rodilla", "ginocchio", "joelho", "SHOULDER",
        "Schulter", "SchulterRe", "épaule", "EPAULE", "hombro", "spalla", "WRIST", "Handgelenk", "poignet", "HAND",
        "HANDS", "Hände", "elbow", "Ellenbogen", "coude", "gomito", "ANKLE", "Sprunggelenk", "cheville", "caviglia",
        "FOOT", "Fuß", "Füße", "Fuss", "VORFUSS", "pied", "HIP", "HIPS", "Hüfte", "HUEFTE", "hanche", "FEMUR",
        "Oberschenkel", "Unterarm", "THIGH", "calf", "LEG", "LEGS", "ARM", "left arm", "t1_knee_sag", "femoral head",
        "femoral neck FEMUR", "radial head elbow", "Kreuzband Knie",
    ),
    "unknown": (
        "HEADFIRST", "HEAD FIRST SUPINE", "FEET FIRST", "FeetFirst", "HFS", "SPINECHO", "SE SPIN ECHO", "T1_SpinEcho",
        "COMPUTERTOMOGRAPHIE", "Computed tomography", "DELIVERY", "CONTRAST DELIVERY", "neurography", "NEUROGRAPHIE",
        "NEURO", "Manière", "CHESTNUT", "Rochester", "Manchester protocol", "orchestra", "ALARM", "PHARMA", "BAND",
        "HUSBAND", "LINEAR", "YEAR 2", "SHIP", "CHIP", "MICROCHIP", "LEGACY", "COLLEGE", "ELEGANT", "BRAINLAB",
        "Brainlab_3D", "Bauchlage", "TESTING", "COLONIAL HOSPITAL", "COLOMBIA", "Lombardi", "TEMPORAL RESOLUTION",
        "spatiotemporal", "INTERFACE", "SURFACE", "craniocaudal", "CRANIO-CAUDAL", "superficial", "facet",
        "MULTIPLE MYELOMA", "myelofibrosis", "EXTREME", "plunge", "shandy", "ARMS UP", "C-ARM", "TREATMENT ARM B",
        "STUDY ARM 2", "outer", "ROUTER", "SCOUTER", "immaculate", "Herzog", "CARDIFF", "cardiac gated",
        "CARDIAC TRIGGERED", "heart rate", "32ch", "abduction", "BODY 5.0", "SCREENING", "DIRECTED", "RECTANGULAR",
        "spectral", "HIPPIE", "KNIGHT", "footer", "HANDLE", "SHORTHAND", "LEGEND", "PELLET", "CORRECTED", "columnar",
        "COLUMN", "SINUS TARSI", "TO MID THIGH", "SKULL BASE TO MID THIGH", "KNEE AND BRAIN", "BOTTLENECK", "BREACH",
        "Brustlage", "diverse", "Standard 2.5mm", "AA - RibRangesDefault",
    ),
}  # fmt: skip
"""Names of series, and the region that a radiographer reads in them. `unknown`: words inside of other words."""


@pytest.mark.parametrize(("name", "expected"), [(name, found) for found, names in WORDS.items() for name in names])
def test_a_word_tells_its_region_in_any_language_case_and_spelling(name, expected):
    assert region(SeriesDescription=name)[0] == expected


@pytest.mark.parametrize("separated", ["T2_{}_3D", "2{}1", "tra-{}.5", "A{}Routine", "{}/ KM", "p2 {}"])
@pytest.mark.parametrize(("word", "expected"), [("Knee", "extremity"), ("Thorax", "chest"), ("Colonne", "spine")])
def test_underscores_digits_and_case_separate_words(separated, word, expected):
    assert region(SeriesDescription=separated.format(word))[0] == expected


@pytest.mark.parametrize(
    ("body_part", "expected"),
    [
        ("LSPINE", "spine"), ("CTSPINE", "spine"), ("LSSPINE", "spine"), ("SSPINE", "spine"), ("CSPINE", "spine"),
        ("EXTREMITY", "extremity"), ("CIRCLEOFWILLIS", "brain"), ("CORONARYARTERY", "heart"), ("LUNG", "chest"),
        ("GALLBLADDER", "abdomen"), ("COLON", "abdomen"), ("PROSTATE", "pelvis"), ("BLADDER", "pelvis"),
        ("ESOPHAGUS", "chest"), ("CERVIX", "pelvis"), ("WHOLEBODY", "unknown"), ("PARTIALBODY", "unknown"),
    ],
)  # fmt: skip
def test_body_part_examined_is_read_by_its_defined_terms(body_part, expected):
    assert region(BodyPartExamined=body_part)[0] == expected


# ── several regions ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CT CH/ABD/PEL", "abdomen"), ("CheAbdPel 5.0", "abdomen"), ("ABD/PEL 2.5 MM", "abdomen"),
        ("CHEST 2.5 MM/ABD.PEL 2.5MM", "abdomen"), ("HEAD NECK", "head"), ("Thorax-Abdomen", "chest"),
        ("CHEST_TO_PELVIS", "abdomen"), ("HEADNECK", "head"), ("NECKCHESTABDPELV", "abdomen"),
        ("CHESTABDOMEN", "chest"), ("ABDOMENPELVIS", "abdomen"),
    ],
)  # fmt: skip
def test_several_regions_hold_for_a_stack_that_reaches_over_them_and_a_short_one_may_show_any(name, expected):
    assert long_region(SeriesDescription=name) == expected
    assert long_region(BodyPartExamined=name) == expected
    assert decided(SeriesDescription=name) == ("unknown", ("several_regions",))


def test_a_coronal_slice_reaches_over_the_regions_that_its_field_of_view_holds():
    coronal = {"n": 1, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "SeriesDescription": "COR ABD/PEL"}

    assert region(MR, **coronal, PixelSpacing=[6, 6])[0] == "abdomen"  # 64 rows
    assert region(MR, **coronal, PixelSpacing=[2, 2])[0] == "unknown"


def test_several_regions_without_a_rule_stay_undecided_and_are_noted():
    assert decided(SeriesDescription="KNEE AND BRAIN") == ("unknown", ("several_regions",))
    assert decided(SeriesDescription="HRCT TEMPORAL BONE", BodyPartExamined="HEAD") == ("head", ())


@pytest.mark.parametrize("name", ["CHEST", "CHEST/ABD"])
def test_an_examination_of_several_regions_contradicts_none_of_its_series(name):
    study = "CT CHEST ABDOMEN PELVIS"

    assert decided(SeriesDescription=name, StudyDescription=study, each_ImagePositionPatient=LONG) == ("chest", ())


def test_the_body_part_does_not_say_where_in_several_regions_a_short_stack_is():
    names = {"ProtocolName": "CHEST/ABD/PEL", "BodyPartExamined": "LUNG"}

    assert decided(**names, StudyDescription="CT CHEST ABD PELVIS")[0] == "unknown"
    assert decided(**names, StudyDescription="CT CHEST")[0] == "chest"


# ── precedence and contradiction ─────────────────────────────────────────────


def test_body_part_examined_precedes_the_words_of_the_examination_and_the_contradiction_is_noted():
    contradicting = prompt(series(CT, StudyDescription="CT HEAD", BodyPartExamined="CHEST"))
    agreeing = prompt(series(CT, StudyDescription="THORAX", BodyPartExamined="CHEST"))

    assert (contradicting.region.value, contradicting.region.source) == ("chest", "body_part")
    assert (contradicting.conflicts, agreeing.conflicts) == (("region_conflict",), ())
    assert contradicting.region.confidence < agreeing.region.confidence


@pytest.mark.parametrize(
    ("study", "expected"), [("", "unknown"), ("CT KNEE", "unknown"), ("CT THORAX", "chest"), ("CT ABDOMEN", "abdomen")]
)
def test_a_description_against_the_body_part_leaves_the_region_open_unless_the_examination_decides(study, expected):
    found = decided(SeriesDescription="THORAX", BodyPartExamined="ABDOMEN", StudyDescription=study)

    assert found == (expected, ("region_conflict",))


@pytest.mark.parametrize(
    ("study", "body_part"),
    [("MR PELVIS", "ABDOMEN"), ("MR BREAST", "CHEST"), ("Schulter", "CHEST"), ("HWS", "HEAD"), ("NECK", "BRAIN")],
)
def test_a_neighbour_of_the_body_part_in_the_words_of_the_examination_leaves_the_region_open(study, body_part):
    assert decided(MR, StudyDescription=study, BodyPartExamined=body_part) == ("unknown", ("region_conflict",))


@pytest.mark.parametrize(
    ("words", "body_part", "expected"),
    [
        ("CTA coronaries", "CHEST", "heart"),
        ("LWS", "ABDOMEN", "spine"),
        ("HWS", "NECK", "spine"),
    ],
)
def test_a_part_of_the_body_part_in_words_is_the_region_and_contradicts_nothing(words, body_part, expected):
    assert decided(SeriesDescription=words, BodyPartExamined=body_part) == (expected, ())
    assert decided(StudyDescription=words, BodyPartExamined=body_part) == (expected, ())


def test_lung_bases_in_a_scan_of_the_pancreas_are_the_abdomen():
    names = {"SeriesDescription": "LUNG BASES 5MM", "StudyDescription": "CT ABDOMEN & PELVIS ENHANCED=AB"}

    assert decided(**names, BodyPartExamined="PANCREAS") == ("abdomen", ())


def test_the_series_precedes_the_examination_and_the_contradiction_is_noted():
    code = dataset(CodeValue="LOCAL1", CodingSchemeDesignator="99X", CodeMeaning="CT of the abdomen")

    assert decided(SeriesDescription="CHEST", StudyDescription="HEAD") == ("chest", ("region_conflict",))
    assert decided(SeriesDescription="CHEST", ProcedureCodeSequence=code) == ("chest", ("region_conflict",))
    assert decided(StudyDescription="HEAD", ProcedureCodeSequence=code) == ("abdomen", ())


def test_anatomy_codes_outrank_body_part_and_names():
    code = dataset(CodeValue="T-A0100", CodingSchemeDesignator="SRT", CodeMeaning="Brain")

    found = prompt(series(MR, AnatomicRegionSequence=code, SeriesDescription="KNEE", BodyPartExamined="KNEE"))

    assert (found.region.value, found.region.source) == ("brain", "anatomy_code")
    assert "region_conflict" in found.conflicts


def test_the_anatomy_of_a_frame_is_found_in_its_functional_group():
    anatomy = dataset(FrameAnatomySequence=dataset(AnatomicRegionSequence=dataset(CodeValue="76752008")))
    header = multi_frame(
        "1.2.840.10008.5.1.4.1.1.4.1", anatomy, [Dataset() for _ in range(7)], Modality="MR", SeriesDescription="x"
    )

    assert prompt([header]).region.value == "breast"


def test_the_head_is_the_brain_in_mr_and_the_head_in_ct():
    assert region(MR, BodyPartExamined="HEAD") == ("brain", "body_part")
    assert region(CT, BodyPartExamined="HEAD") == ("head", "body_part")
    assert decided(CT, BodyPartExamined="HEAD", SeriesDescription="BRAIN 5MM") == ("head", ())


def test_a_photograph_of_the_eye_shows_the_retina():
    assert region(OP, n=1, BodyPartExamined="EYE")[0] == "retina"


# ── the heart ────────────────────────────────────────────────────────────────

CINE = {
    "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "ScanningSequence": "GR", "SequenceVariant": "SS",
    "ScanOptions": ["FAST_GEMS", "CG"], "CardiacNumberOfImages": 20, "RepetitionTime": 3.8, "EchoTime": 1.7,
    "TriggerTime": 10,
}  # fmt: skip


@pytest.mark.parametrize("flavour", ["CARDIAC", "CARDIAC_CTA", "CARDIAC_CASCORE"])
def test_an_image_type_of_the_heart_tells_the_region(flavour):
    assert region(MR, ImageType=["ORIGINAL", "PRIMARY", flavour, "NONE"]) == ("heart", "image_type")
    assert decided(CT, ImageType=["ORIGINAL", "PRIMARY", flavour], BodyPartExamined="CHEST") == ("heart", ())


def test_a_balanced_cine_triggered_by_the_ecg_is_of_the_heart():
    assert region(MR, **CINE) == ("heart", "physics")


@pytest.mark.parametrize(
    "values",
    [
        {"ScanOptions": "PPG"},
        {"ScanOptions": ""},
        {"SequenceVariant": ["SS", "SP"]},
        {"SequenceVariant": "SP"},
        {"CardiacNumberOfImages": 0},
        {"ScanningSequence": "SE"},
        {"RepetitionTime": 25},
        {"ImageType": ["ORIGINAL", "PRIMARY", "CARDIAC_GATED"], "ScanOptions": "PPG"},
    ],
)
def test_triggering_alone_is_no_heart(values):
    assert region(MR, **{**CINE, **values}) == ("unknown", "none")


def test_a_cine_and_a_body_part_that_contradict_each_other_leave_the_region_open():
    assert decided(MR, **CINE, BodyPartExamined="BRAIN") == ("unknown", ("region_conflict",))
