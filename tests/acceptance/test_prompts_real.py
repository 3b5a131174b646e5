"""The prompts that headers give to every set of a collection: the right word or `unknown`, never another.

    pytest -m acceptance tests/acceptance/test_prompts_real.py --collection DIR -s

The right words are those that a person reads in the pixels, not in the headers.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from acceptance.collection import image_sets
from acceptance.series import by_uid, print_table

from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.dicom.prompts import prompt_from_header
from mediqa_node.domain.prompt import Prompt

pytestmark = [pytest.mark.acceptance, pytest.mark.filterwarnings("ignore::UserWarning:pydicom")]

RIGHT = {
    "ct_head_ge": ("head", "soft"),
    "ct_abdomen_crlm1004": ("abdomen", "soft"),
    "ct_abdomen_crlm1006": ("abdomen", "soft"),
    "ct_abdomen_kits072_emotion16": ("abdomen", "soft"),
    "ct_body_totalseg_j2k": ("abdomen", "soft"),
    "ct_chest_lidc0314": ("chest", "lung"),
    "ct_chest_lungdx_a0001_s2": ("chest", "lung"),
    "ct_chest_lungdx_a0001_s3": ("chest", "soft"),
    "ct_chest_lungdx_a0002_s2": ("chest", "lung"),
    "ct_chest_lungdx_a0002_s3": ("chest", "soft"),
    "ct_lungbase_revolution_c3l00189": ("abdomen", "lung"),  # kidneys and liver with a lung kernel
    "ct_sts003_lowdose": ("extremity", "soft"),  # thigh to buttock
    "ct_sts013_lowdose": ("extremity", "soft"),
    "ct_sts020_lowdose": ("extremity", "soft"),
    "ct_sts036_lowdose": ("extremity", "soft"),  # thigh to groin
    "fundus_avrdb": ("retina", "cfp"),
    "fundus_chasedb1": ("retina", "cfp"),
    "fundus_hrf": ("retina", "cfp"),
    "fundus_idrid": ("retina", "cfp"),
    "fundus_wikimedia_right": ("retina", "cfp"),
    "mr_abdomen_t2_cmb": ("abdomen", "t2"),
    "mr_abdomen_t2_cmb2": ("abdomen", "t2"),
    "mr_brain_dti_achieva": ("brain", "dwi"),
    "mr_brain_dti_galan_canon": ("brain", "dwi"),
    "mr_brain_dti_galan_toshiba": ("brain", "dwi"),
    "mr_brain_dti_prisma_mb4": ("brain", "dwi"),
    "mr_brain_dwi_elition": ("brain", "dwi"),
    "mr_brain_dwi_prisma_sag": ("brain", "dwi"),
    "mr_brain_epi_ge750": ("brain", "t2_star"),
    "mr_brain_epi_signauhp": ("brain", "t2"),  # spin echo EPI of a field map
    "mr_brain_t1_datalad": ("brain", "t1"),
    "mr_brain_t1_prisma_sag": ("brain", "t1"),
    "mr_brain_t1_skyra_age3": ("brain", "t1"),
    "mr_brain_t1_xa30_enhanced": ("brain", "t1"),
    "mr_brain_t2_trio_adi": ("brain", "t2"),
    "mr_breast_ucsf06": ("breast", "t1"),
    "mr_fetal_t2_mial_run1": ("abdomen", "t2"),  # of the mother, with a fetus
    "mr_heart_cine_hdx_scd00101": ("heart", "unknown"),  # balanced: no word of the vocabulary
    "mr_heart_cine_hdx_scd00301": ("heart", "unknown"),
    "mr_prostate_t2_skyra_px0000": ("pelvis", "t2"),
    "mr_prostate_t2_trio_px0218": ("pelvis", "t2"),
    "mr_prostate_vibe_trio_px0218": ("pelvis", "t1"),
    # Sets of single slices, one a series: by the end of the Series Instance UID.
    "ct_body_nysbu_ge/65199671": ("chest", "soft"),
    "ct_body_nysbu_ge/91791631": ("chest", "soft"),
    "ct_body_nysbu_ge/26458547": ("abdomen", "soft"),
    "ct_body_nysbu_ge/66735215": ("abdomen", "soft"),
    "ct_body_nysbu_ge/76029877": ("chest", "soft"),
    "ct_body_nysbu_ge/25260735": ("chest", "soft"),
    "ct_body_nysbu_ge/14869357": ("chest", "soft"),
    "ct_body_nysbu_ge/45215037": ("chest", "soft"),
    "ct_body_nysbu_ge/28363517": ("chest", "soft"),
    "ct_body_nysbu_ge/39851193": ("abdomen", "soft"),
    "ct_body_nysbu_ge/25962610": ("abdomen", "soft"),
    "ct_body_nysbu_ge/39525123": ("abdomen", "soft"),
    "ct_body_nysbu_ge/58455517": ("abdomen", "soft"),
    "ct_body_nysbu_ge/82058553": ("chest", "soft"),
    "ct_body_nysbu_ge/13658316": ("chest", "soft"),
    "ct_body_nysbu_toshiba/91289688": ("chest", "soft"),
    "ct_body_nysbu_toshiba/25300084": ("abdomen", "soft"),
    "ct_body_nysbu_toshiba/37713671": ("abdomen", "soft"),
    "ct_body_nysbu_toshiba/66813909": ("chest", "soft"),
    "ct_chest_tcga_scanners/09743992": ("chest", "soft"),
    "ct_chest_tcga_scanners/55154074": ("chest", "soft"),
    "ct_chest_tcga_scanners/25031349": ("chest", "soft"),
    "ct_chest_tcga_scanners/14776511": ("chest", "soft"),
    "ct_chest_tcga_scanners/42253053": ("abdomen", "soft"),
    "ct_chest_tcga_scanners/24544683": ("chest", "soft"),
}
"""Region and type of every set that is not to be refused, or of each of its series."""

OPEN_REGIONS, OPEN_TYPES = 13, 3
"""How many series of the collection headers leave open: a limit that may only fall."""


@dataclass(frozen=True, slots=True)
class Read:
    """The prompts that headers give to the stacks of one series."""

    name: str
    prompts: tuple[Prompt, ...]
    slices: tuple[int, ...]

    @property
    def right(self) -> tuple[str, str]:
        return RIGHT[self.name] if self.name in RIGHT else RIGHT[self.name.split("/")[0]]


@pytest.fixture(scope="module")
def every_series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Read]:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    if not named:
        pytest.skip("needs --collection DIR")
    found = []
    for each in image_sets(Path(named), tmp_path_factory.mktemp("sets")):
        for uid, files in [] if each.refused else by_uid(each.paths):
            prompts = tuple(prompt_from_header(files.headers, stack, default_rules()) for stack in files.stacks)
            slices = tuple(len(stack.positions_mm) for stack in files.stacks)
            found.append(Read(f"{each.name}/{uid[-8:]}", prompts, slices))
    return found


def test_region_and_type_are_right_or_unknown(every_series):
    wrong = [
        (read.name, prompt.region.value, prompt.type.value)
        for read in every_series
        for prompt in read.prompts
        if prompt.region.value not in (read.right[0], "unknown") or prompt.type.value not in (read.right[1], "unknown")
    ]

    assert wrong == []


def test_modality_and_dimension_are_right(every_series):
    modality = {"ct": "CT", "mr": "MR", "fundus": "OP"}

    for read in every_series:
        assert {prompt.modality.value for prompt in read.prompts} == {modality[read.name.split("_")[0]]}
        assert [prompt.dimension.value for prompt in read.prompts] == ["3D" if n >= 7 else "2D" for n in read.slices]


def test_no_more_series_than_before_are_left_open(every_series):
    lines = [
        f"{read.name:42} {term('region', prompt):32} {term('type', prompt):32} {', '.join(prompt.conflicts)}"
        for read in every_series
        for prompt in read.prompts[:1]
    ]
    regions = Counter(read.prompts[0].region.value for read in every_series)
    types = Counter(read.prompts[0].type.value for read in every_series)
    rest = f"of {len(every_series)} series: region unknown {regions['unknown']}, type unknown {types['unknown']}"
    print_table(f"{'set/series':42} {'region':32} {'type':32} conflicts", lines, rest)

    assert regions["unknown"] <= OPEN_REGIONS
    assert types["unknown"] <= OPEN_TYPES


def term(name: str, prompt: Prompt) -> str:
    found = getattr(prompt, name)
    return f"{found.value} ({found.source} {found.confidence:.2f})"
