"""The four prompts from headers: precedence, contradiction, and tables that a site may break."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydicom import Dataset
from support.header_builders import CT, DATA, DEMO, MR, OP, series, stored

from mediqa_node.dicom.prompts import PromptRules, default_rules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.mr_contrast import MrTiming, contrast_by_physics
from mediqa_node.domain.errors import ConfigurationError, NotScorable
from mediqa_node.domain.prompt import Prompt

ROOT = Path(__file__).parents[2]
RULES = default_rules()


def tables() -> tuple[dict, dict]:
    folder = ROOT / "config"
    prompts, kernels = (yaml.safe_load((folder / name).read_text("utf-8")) for name in ("prompts.yaml", "kernels.yaml"))
    return prompts, kernels


def prompt(headers: list[Dataset], rules: PromptRules = RULES) -> Prompt:
    return prompt_from_header(headers, assemble_stacks(headers)[0], rules)


def kind(sop_class: str = CT, **values: object) -> tuple[str, str]:
    term = prompt(series(sop_class, **values)).type
    return term.value, term.source


@pytest.mark.parametrize(("n", "expected"), [(6, "2D"), (7, "3D")])
def test_seven_positions_are_a_volume(n, expected):
    assert prompt(series(CT, n=n)).dimension.value == expected


def test_the_sop_class_tells_the_modality_and_a_contradiction_is_noted():
    found = prompt(series(CT, Modality="MR"))

    assert (found.modality.value, found.modality.source) == ("CT", "sop_class")
    assert "modality_conflict" in found.conflicts


def test_an_empty_sop_class_leaves_it_to_the_modality():
    found = prompt(series(CT, SOPClassUID="", Modality="CT"))

    assert (found.modality.value, found.modality.source) == ("CT", "data")


def test_what_is_no_ct_mr_or_photograph_has_no_prompt():
    with pytest.raises(NotScorable, match="modality"):
        prompt(series(CT, SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality="PT"))


def test_a_site_overrides_by_protocol_name():
    prompts, kernels = tables()
    prompts["site"] = [{"protocol": "^FDG", "series": "Body", "region": "abdomen", "type": "bone"}]
    rules = PromptRules.from_mappings(prompts, kernels)

    found = prompt(series(CT, ProtocolName="FDG_TK_KM", SeriesDescription="CT Body", ConvolutionKernel="B30f"), rules)
    other = prompt(series(CT, ProtocolName="FDG_TK_KM", SeriesDescription="Chest"), rules)

    assert (found.region.value, found.region.source) == ("abdomen", "site")
    assert (found.type.value, found.type.source) == ("bone", "site")
    assert other.region.source == "text"


@pytest.mark.parametrize(
    ("manufacturer", "kernel", "expected"),
    [
        ("SIEMENS", "B70f", "lung"), ("SIEMENS", "Bl57", "lung"), ("SIEMENS", "Br59", "lung"),
        ("SIEMENS", "B40f", "soft"),
        ("SIEMENS", ["I31f", "3"], "soft"), ("SIEMENS", ["Br38f", "3"], "soft"), ("SIEMENS", "H60s", "bone"),
        ("GE MEDICAL SYSTEMS", "LUNG", "lung"), ("GE MEDICAL SYSTEMS", "BONEPLUS", "lung"),
        ("GE MEDICAL SYSTEMS", "STANDARD", "soft"), ("GE MEDICAL SYSTEMS", "STD+", "soft"),
        ("GE MEDICAL SYSTEMS", "BONE", "bone"), ("Philips", "L", "lung"), ("Philips", "YB", "lung"),
        ("Philips", "B", "soft"), ("TOSHIBA", "FC52", "lung"), ("CANON_MEC", "FC85", "lung"),
        ("TOSHIBA", "FC17", "soft"),
        ("TOSHIBA", "FC30", "bone"),
    ],
)  # fmt: skip
def test_the_kernel_tells_the_type_of_a_chest_ct(manufacturer, kernel, expected):
    found = kind(Manufacturer=manufacturer, ConvolutionKernel=kernel, BodyPartExamined="CHEST")

    assert found == (expected, "kernel")


def test_a_lung_kernel_outside_the_chest_was_used_for_bone():
    assert kind(Manufacturer="SIEMENS", ConvolutionKernel="B70f", BodyPartExamined="LSPINE") == ("bone", "kernel")


def test_the_kernel_wins_over_the_window_and_a_contradiction_is_noted():
    found = prompt(
        series(CT, Manufacturer="GE", ConvolutionKernel="STANDARD", WindowCenter=[-600, 40], WindowWidth=[1500, 400])
    )

    assert found.type.value == "soft"
    assert found.conflicts == ("type_conflict",)


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [(-600, 1500, "lung"), (40, 400, "soft"), (500, 2000, "bone"), (-600, 400, "unknown"), (40, 80, "unknown")],
)
def test_without_a_kernel_the_first_window_tells(center, width, expected):
    assert kind(WindowCenter=center, WindowWidth=width)[0] == expected


def test_an_unlisted_kernel_gives_way_to_the_window_and_else_falls_back():
    philips_d = {"Manufacturer": "Philips", "ConvolutionKernel": "D"}

    assert kind(**philips_d, WindowCenter=-450, WindowWidth=2000) == ("lung", "window")
    assert kind(**philips_d) == ("bone", "kernel")


def test_words_tell_the_ct_type_last():
    assert kind(SeriesDescription="Weichteil 5mm") == ("soft", "text")
    assert kind(SeriesDescription="Weichteil 5mm", ProtocolName="LUNG LOW DOSE") == ("soft", "text")
    assert kind(SeriesDescription="SOFTWARE TEST, PLUNGE, ROSSO") == ("unknown", "none")
    assert kind() == ("unknown", "none")


def test_a_lung_kernel_and_window_are_of_the_lung_bases_in_an_abdomen_too():
    found = kind(
        Manufacturer="GE", ConvolutionKernel="LUNG", WindowCenter=-600, WindowWidth=1500, BodyPartExamined="LIVER"
    )

    assert found == ("lung", "kernel")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AX T2 FLAIR", "flair"), ("t2_tirm_dark-fluid", "flair"), ("T1 FLAIR SAG", "t1"), ("T2 STIR", "stir"),
        ("AX T2", "t2"), ("HASTE cor", "t2"), ("T2* GRE", "t2_star"), ("SWI", "t2_star"), ("ep2d_bold", "t2_star"),
        ("anat-T1w", "t1"), ("MP-RAGE", "t1"), ("VIBE dyn", "t1"), ("PD FS", "pd"), ("DTI_Biobank", "dwi"),
        ("DIFF B1000", "dwi"), ("Zugfahrt", "unknown"), ("T2_TSE_TRA_KNEE2", "t2"), ("axT1", "t1"), ("PDW_sag", "pd"),
        ("T12 L1", "unknown"), ("PART2", "unknown"), ("TEST1", "unknown"), ("DIFFERENT", "unknown"),
        ("SWISS", "unknown"), ("TRACER", "unknown"), ("HEMODYNAMICS", "unknown"), ("CHASTE", "unknown"),
        ("STIRLING", "unknown"), ("PROTON SPECTROSCOPY", "unknown"),
    ],
)  # fmt: skip
def test_names_tell_the_contrast_of_mr(name, expected):
    assert kind(MR, SeriesDescription=name)[0] == expected


def test_acquisition_contrast_outranks_names_and_a_contradiction_is_noted():
    found = prompt(series(MR, AcquisitionContrast="FLUID_ATTENUATED", SeriesDescription="AX T2"))

    assert (found.type.value, found.type.source) == ("flair", "acquisition_contrast")
    assert found.conflicts == ("type_conflict",)


def test_an_unknown_acquisition_contrast_decides_nothing():
    assert kind(MR, AcquisitionContrast="UNKNOWN", SeriesDescription="AX T2") == ("t2", "text")


SE = {"ScanningSequence": "SE", "SequenceVariant": "SK", "FlipAngle": 90}


def test_names_and_physics_that_agree_are_surer_than_names_alone_and_a_contradiction_leaves_the_type_open():
    alone = prompt(series(MR, SeriesDescription="AX T2"))
    agreeing = prompt(series(MR, SeriesDescription="AX T2", EchoTime=90, RepetitionTime=4000, **SE))
    contradicting = prompt(series(MR, SeriesDescription="AX T2", EchoTime=10, RepetitionTime=500, **SE))

    assert contradicting.type.value == "unknown"
    assert alone.type.confidence < agreeing.type.confidence
    assert contradicting.conflicts == ("type_conflict",)
    assert (alone.conflicts, agreeing.conflicts) == ((), ())


def test_tirm_gives_way_to_an_inversion_time_of_stir():
    timing = {"ScanningSequence": ["SE", "IR"], "EchoTime": 40, "RepetitionTime": 4000, "InversionTime": 160}

    found = prompt(series(MR, SeriesDescription="t2_tirm_cor", **timing))

    assert (found.type.value, found.type.source) == ("stir", "physics")
    assert found.conflicts == ()


def test_the_unweighted_image_of_a_diffusion_series_contradicts_nothing():
    found = prompt(stored(DATA / "mr_brain_dti_achieva"))

    assert found.type.value == "dwi"
    assert found.conflicts == ()


SPIN = MrTiming(
    echo_time_ms=90, repetition_time_ms=4000, inversion_time_ms=None, flip_angle_deg=90, gradient=False, spin=True,
    inversion=False, echo_planar=False, spoiled=False,
)  # fmt: skip
GRADIENT = replace(
    SPIN, gradient=True, spin=False, spoiled=True, echo_time_ms=4, repetition_time_ms=8, flip_angle_deg=15
)


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        (SPIN, "t2"),
        (replace(SPIN, echo_time_ms=15, repetition_time_ms=600), "t1"),
        (replace(SPIN, echo_time_ms=15, repetition_time_ms=1050), "t1"),
        (replace(SPIN, echo_time_ms=20, repetition_time_ms=2500), "pd"),
        (replace(SPIN, echo_time_ms=50, repetition_time_ms=2500), None),
        (replace(SPIN, inversion=True, inversion_time_ms=2500, repetition_time_ms=9000), "flair"),
        (replace(SPIN, inversion=True, inversion_time_ms=2500, repetition_time_ms=9000, echo_time_ms=20), None),
        (
            replace(
                SPIN,
                inversion=True,
                inversion_time_ms=1800,
                repetition_time_ms=5000,
                echo_time_ms=20,
                refocused_3d=True,
            ),
            "flair",
        ),
        (replace(SPIN, inversion=True, inversion_time_ms=160), "stir"),
        (replace(SPIN, inversion=True, inversion_time_ms=860, repetition_time_ms=2000, echo_time_ms=10), "t1"),
        (replace(SPIN, echo_planar=True), None),
        (replace(SPIN, b_value_s_mm2=1000), "dwi"),
        (replace(SPIN, echo_time_ms=None), None),
        (GRADIENT, "t1"),
        (replace(GRADIENT, inversion=True, inversion_time_ms=900, repetition_time_ms=2300, flip_angle_deg=8), "t1"),
        (replace(GRADIENT, echo_time_ms=20, repetition_time_ms=600, flip_angle_deg=20), "t2_star"),
        (replace(GRADIENT, echo_time_ms=30, repetition_time_ms=3000, flip_angle_deg=90), None),
        (replace(GRADIENT, echo_time_ms=30, repetition_time_ms=3000, flip_angle_deg=90, echo_planar=True), "t2_star"),
        (replace(GRADIENT, spoiled=False), None),
    ],
)
def test_physics_tells_the_contrast_or_says_nothing(timing, expected):
    assert contrast_by_physics(timing) == expected


def test_a_colour_photograph_is_a_fundus_and_an_angiogram_stays_unknown():
    colour = prompt(series(OP, n=1, SamplesPerPixel=3))
    angiogram = prompt(series(OP, n=1, SamplesPerPixel=1))

    assert (colour.region.value, colour.type.value) == ("retina", "cfp")
    assert angiogram.type.value == "unknown"
    assert kind(OP, n=1, SamplesPerPixel=3, SeriesDescription="Red-free") == ("unknown", "none")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (DEMO, ("3D", "CT", "chest", "soft")),
        (DATA / "ct_body_totalseg_j2k", ("3D", "CT", "unknown", "soft")),
        (DATA / "ct_sts036_lowdose", ("3D", "CT", "extremity", "soft")),
        (DATA / "mr_brain_epi_ge750", ("3D", "MR", "brain", "t2_star")),
        (DATA / "mr_brain_t1_xa30_enhanced", ("3D", "MR", "brain", "t1")),
        (DATA / "mr_breast_ucsf06", ("3D", "MR", "breast", "t1")),
    ],
)
def test_real_series_get_the_prompts_a_radiographer_would_give(folder, expected):
    found = prompt(stored(folder))

    assert (found.dimension.value, found.modality.value, found.region.value, found.type.value) == expected
    assert found.conflicts == ()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("region", "text", "brain"), ["("], r"prompts.yaml: key `region.text.brain\[0\]`: found '\('; .*expression"),
        (("region", "codes", "1"), "nose", r"region.codes.1`: found 'nose'; allowed: unknown, head"),
        (("region", "text", "nose"), ["x"], r"region.text.nose`: found 'nose'; allowed"),
        (("region", "image_types", "CARDIAC"), "nose", r"region.image_types.CARDIAC`: found 'nose'; allowed"),
        (
            ("region", "combined"),
            [{"regions": ["head"], "region": "head", "from_mm": None}],
            r"from_mm`: .*millimetres",
        ),
        (("region", "as_modality", "XA"), {}, r"as_modality.XA`: found 'XA'; allowed: CT, MR, OP"),
        (("type", "acquisition_contrast", "T1"), "t9", r"acquisition_contrast.T1`: found 't9'"),
        (("type", "text_mr"), [{"pattern": "x", "typ": "t1"}], r"type.text_mr\[0\].typ`: .*known are pattern, type"),
        (("type", "text_mr"), [{"pattern": "x"}], r"type.text_mr\[0\].type`: .*required"),
        (("type", "text_mr"), [{"pattern": "x", "type": "t1", "weak": "y"}], r"weak`: found 'y'; allowed: true, false"),
        (("type", "windows"), [{"type": "lung", "center": [1], "width": [1, 2]}], r"windows\[0\].center`"),
        (("type", "windows"), [{"type": "t1", "center": [1, 2], "width": [1, 2]}], r"allowed: lung, soft, bone"),
        (("type", "not_colour"), 5, r"type.not_colour`: found 5; allowed: a regular expression"),
        (("site",), [{"protocol": "x"}], r"site\[0\]`: .*region, type or both"),
        (("site",), {"protocol": "x"}, r"`site`: .*a list"),
        (("regions",), {}, r"`regions`: .*no such key"),
    ],
)
def test_a_wrong_table_is_refused_with_key_value_and_what_is_allowed(path, value, said):
    prompts, kernels = tables()
    place = prompts
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(ConfigurationError, match=said):
        PromptRules.from_mappings(prompts, kernels)


def test_a_table_of_before_the_words_of_image_type_is_read():
    prompts, kernels = tables()
    del prompts["region"]["image_types"]

    assert PromptRules.from_mappings(prompts, kernels).region_image_types == {}


def test_patterns_of_a_site_may_have_accents():
    prompts, kernels = tables()
    prompts["region"]["text"] = {"extremity": ["fu(ss|ß)", "épaule"], "head": ["sch(ae|ä)del"]}
    rules = PromptRules.from_mappings(prompts, kernels)

    names = ("Fuß", "FUSS", "Épaule", "EPAULE", "Schädel")
    found = [prompt(series(CT, SeriesDescription=name), rules).region.value for name in names]

    assert found == ["extremity"] * 4 + ["head"]


def test_a_wrong_kernel_table_is_refused_with_its_own_name():
    prompts, kernels = tables()
    kernels["vendors"]["ge"]["lung"] = ["["]

    with pytest.raises(ConfigurationError, match=r"kernels.yaml: key `vendors.ge.lung\[0\]`"):
        PromptRules.from_mappings(prompts, kernels)
