"""The columns of the manifest: name, type, unit and meaning, used by CSV, Parquet, Croissant and the dataset card."""

from dataclasses import dataclass

from mediqa_node.domain.quantities import CT_NOISE, QUANTITIES, SHOWN_UNITS

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `unit` is empty if it has none. Kinds: str, int, float, bool."""

    name: str
    kind: str
    unit: str
    meaning: str


def columns_of(table: str) -> tuple[Column, ...]:
    """Read lines of `name kind unit meaning`; `-` for no unit."""
    rows = (line.split(maxsplit=3) for line in table.strip().splitlines())
    return tuple(Column(name, kind, "" if unit == "-" else unit, meaning) for name, kind, unit, meaning in rows)


_BEFORE_MEASURES = columns_of("""
schema_version        int   -    of this table
export_id             str   -    SHA-256 over all other columns and the configuration of the export
patient_key           str   -    keyed pseudonym of issuer and Patient ID
study_key             str   -    of Study Instance UID
series_key            str   -    of Series Instance UID
acq_group_key         str   -    shared by the reconstructions of one acquisition in a study
frame_of_reference_key str  -    of Frame of Reference UID
site_key              str   -    of Institution Name
device_key            str   -    of manufacturer, model, serial number and Station Name
relative_path         str   -    file, or folder of files, from the folder of this table
payload_kind          str   -    refs, dicom, nifti or npz
n_instances           int   1    instances of the series
n_slices              int   1    image planes of its primary stack
pixel_sha256          str   -    keyed digest of the stored values of the primary stack's middle slice
header_sha256         str   -    keyed digest of the kept datasets
sop_class_uid         str   -    SOP Class UID (0008,0016)
modality              str   -    CT, MR or OP, by SOP class
manufacturer          str   -    Manufacturer (0008,0070)
model                 str   -    Manufacturer's Model Name (0008,1090)
software_versions     str   -    Software Versions (0018,1020)
year                  int   a    never filled: dates are removed
image_type            str   -    Image Type (0008,0008)
body_part_raw         str   -    Body Part Examined (0018,0015), wrong in 15 % of cases
region                str   -    region prompt
region_source         str   -    where it comes from
type                  str   -    type prompt
type_source           str   -    where it comes from
prompt_dim            str   -    dimension prompt as the network is told
prompt_mod            str   -    modality prompt as the network is told
prompt_reg            str   -    region prompt as the network is told
prompt_type           str   -    type prompt as the network is told
conflict_flags        str   -    contradictions between sources of prompts, by ;
contrast_agent        bool  -    Contrast/Bolus Agent (0018,0010) is filled; null says nothing
laterality            str   -    Image Laterality (0020,0062)
patient_sex           str   -    Patient's Sex (0010,0040)
age_band              str   -    ten years, 90+ for all above
kvp                   float kV   KVP (0018,0060)
ma_median             float mA   tube current over slices
ma_mean               float mA   tube current over slices
ma_min                float mA   tube current over slices
ma_max                float mA   tube current over slices
ma_p5                 float mA   tube current over slices
ma_p95                float mA   tube current over slices
exposure_tag_median   float mA.s Exposure (0018,1152) as written: not one quantity across vendors
exposure_uas          float uA.s Exposure in uAs (0018,1153) as written, median
exposure_time         float ms   Exposure Time (0018,1150) as written, median
revolution_time       float s    Revolution Time (0018,9305) or a vendor's own
pitch                 float 1    Spiral Pitch Factor (0018,9311) or a vendor's own
collimation_total     float mm   Total Collimation Width (0018,9307)
table_feed            float mm   Table Feed per Rotation (0018,9310)
mas_eff_median        float mA.s effective tube charge over slices: the label of CT
mas_eff_mean          float mA.s over slices
mas_eff_hmean         float mA.s harmonic mean, which noise follows
mas_eff_min           float mA.s over slices
mas_eff_max           float mA.s over slices
mas_eff_cv            float 1    coefficient of variation over slices
mas_definition        str   -    effective, per_rotation, slice_scaled or unknown
mas_source            str   -    rule that chose the value
n_valid               int   1    slices with a value
aec_type              str   -    Exposure Modulation Type (0018,9323)
ctdivol_mean          float mGy  CTDIvol (0018,9345) over slices, or mean CTDIvol of the dose report
ctdi_phantom          float cm   diameter of the IEC phantom that CTDIvol refers to, empty for any other
dlp                   float mGy.cm dose length product
dw_mm                 float mm   Water Equivalent Diameter (0018,1271)
ssde                  float mGy  CTDIvol x AAPM 204 factor of its phantom at dw_mm; empty for heads
kernel                str   -    Convolution Kernel (0018,1210)
kernel_class          str   -    type that the kernel says: lung, soft, bone
recon_class           str   -    fbp, hybrid_ir, mbir, dlr or unknown
slice_thickness       float mm   Slice Thickness (0018,0050)
slice_spacing         float mm   median step between positions
recon_diameter        float mm   Reconstruction Diameter (0018,1100)
pixel_spacing_row     float mm   Pixel Spacing (0028,0030), between rows
pixel_spacing_col     float mm   Pixel Spacing (0028,0030), between columns
gantry_tilt           float deg  Gantry/Detector Tilt (0018,1120)
filter                str   -    Filter Type (0018,1160)
focal_spot            float mm   Focal Spot(s) (0018,1190)
window_center         float HU   first Window Center (0028,1050)
window_width          float HU   first Window Width (0028,1051)
noise_hu              float HU   noise in soft tissue: ct.noise.soft of measures.csv
b0_raw                float -    Magnetic Field Strength (0018,0087) as written, whatever its unit
b0_tesla              float T    flux density as understood
b0_nominal            float T    of the magnet: the label of MR
b0_source             str   -    tesla_tag or imaging_frequency
imaging_freq          float MHz  Imaging Frequency (0018,0084) or Transmitter Frequency (0018,9098)
nucleus               str   -    Imaged Nucleus (0018,0085)
te                    float ms   echo time
tr                    float ms   repetition time
ti                    float ms   inversion time
flip                  float deg  flip angle
etl                   float 1    echo train length
nsa                   float 1    Number of Averages (0018,0083)
pixel_bw              float Hz   Pixel Bandwidth (0018,0095), per pixel
coil                  str   -    Receive Coil Name (0018,1250)
n_phase_enc           float 1    phase encoding steps
acq_matrix            str   -    Acquisition Matrix (0018,1310), numbers other than 0
pct_sampling          float %    Percent Sampling (0018,0093)
pct_pfov              float %    Percent Phase Field of View (0018,0094)
accel_ip              float 1    Parallel Reduction Factor In-plane (0018,9069)
accel_oop             float 1    Parallel Reduction Factor Out-of-plane (0018,9155)
partial_fourier       str   -    Partial Fourier (0018,9081)
acq_duration          float s    Acquisition Duration (0018,9073)
voxel_volume          float mm3  pixel spacing x slice thickness
acq_voxel_volume      float mm3  field of view / acquired matrix x slice thickness
scanning_sequence     str   -    Scanning Sequence (0018,0020)
sequence_variant      str   -    Sequence Variant (0018,0021)
sequence_name         str   -    Sequence Name (0018,0024)
acq_type              str   -    MR Acquisition Type (0018,0023)
hfov                  float deg  Horizontal Field of View (0022,000C)
pupil_dilated         str   -    Pupil Dilated (0022,000D)
dilation              float mm   Degree of Dilation (0022,000E)
rows                  int   1    Rows (0028,0010)
cols                  int   1    Columns (0028,0011)
device_type           str   -    Acquisition Device Type (0022,0015), as the code's dictionary says
""")
_AFTER_MEASURES = columns_of("""
label_name            str   -    mas or tesla; expert scores stand in mos and mos_norm
label_value           float -    in label_unit
label_unit            str   -    UCUM
label_norm            float 1    0..1 by normalizer.json
normalizer_id         str   -    entry of normalizer.json
label_quality         str   -    ok, derived, repaired or review
flags                 str   -    what a physicist should know, by ;
stage1_eligible       bool  -    fit for training stage 1
exclude_reason        str   -    why it is not, codes by ;
mos                   float 1    mean opinion score, 0..1, 1 is best
mos_sd                float 1    its standard deviation over readers
n_readers             int   1    readers
mos_norm              float 1    what stage 2 learns: the same without the readers' habits, cut to 0..1
scale_min             float -    of the raw scores
scale_max             float -    of the raw scores
split                 str   -    train, val or test, by patient
split_seed            str   -    which key drew the splits
fold                  int   -    0..4 for cross-validation, by patient
received_utc          str   a    year in which the node received it
node_version          str   -    that wrote this export
extractor_version     str   -    never filled by this version
deid_profile          str   -    what was done to headers
deid_options          str   -    codes of CID 7050, by ;
source_dataset        str   -    never filled: images of the site
license               str   -    never filled: the site decides
""")

MEASURE_COLUMNS = {CT_NOISE.name: "noise_hu"} | {
    name: name.replace(".", "_") for name in QUANTITIES if name != CT_NOISE.name
}
"""Column of the manifest by the name of the measure that it holds, valid or limited."""
_MEASURES = tuple(
    Column(column, "float", SHOWN_UNITS.get(QUANTITIES[name].unit, QUANTITIES[name].unit), QUANTITIES[name].definition)
    for name, column in MEASURE_COLUMNS.items()
    if name != CT_NOISE.name
)
_LIMITED = columns_of("""
measures_limited      str   -    names of the measures above that are limited, by ;: measures.csv has the reasons
""")
MANIFEST = (*_BEFORE_MEASURES, *_MEASURES, *_LIMITED, *_AFTER_MEASURES)

MEASURES = columns_of("""
series_key            str   -    row of the manifest
name                  str   -    of the quantity
value                 float -    in unit; null: not measurable
unit                  str   -    UCUM
uncertainty           float -    standard uncertainty, k = 1, in unit
spread                float -    interquartile range over slices, in unit: anatomy and modulation, not error
n                     int   1    slices
validity              str   -    valid, limited or not measurable
reason                str   -    why it is limited or not measurable
method                str   -    how it was measured
method_version        int   1    values of different versions are not comparable
citation              str   -    publication that the method follows
""")

SLICES = columns_of("""
series_key            str   -    row of the manifest
instance_key          str   -    keyed pseudonym of SOP Instance UID
frame_number          int   -    from 1; null for single-frame objects
z_mm                  float mm   position along the slice normal
tube_current_ma       float mA   of this slice
tube_charge_mas       float mA.s effective tube charge of this slice
field_strength_t      float T    of this slice
ctdi_vol_mgy          float mGy  of this slice
source                str   -    rule that chose the value
flags                 str   -    by ;
""")

EXCLUDED = columns_of("""
series_key            str   -    keyed pseudonym of Series Instance UID
modality              str   -    Modality (0008,0060)
reason                str   -    codes by ;
reason_text           str   -    the same in words
""")

ANNOTATIONS = columns_of("""
series_key            str   -    row of the manifest
instance_key          str   -    the image that was rated; null: the series as a whole
reader_key            str   -    keyed pseudonym of the reader
reading_key           str   -    keyed pseudonym of the reading study
criterion             str   -    overall, noise, artifact, contrast or sharpness
score                 float -    as given
scale_min             float -    of the scale
scale_max             float -    of the scale
scale_direction       str   -    higher_better or lower_better
repeat                int   -    counts the times that this reader has rated this case
experience_years      float a    of the reader
confidence            float -    of the reader
usable                bool  -    whether the reader calls the image usable
""")
