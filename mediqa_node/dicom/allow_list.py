"""What may leave with a de-identified image, as data: every attribute that is not named here is dropped.

By DICOM keyword, root and sequence items alike. `deidentify` gives each kind its meaning; that of Basic Profile
attributes (PS3.15 table E.1-1) none is kept but sex and a coarse age is held by a test.
"""

# Quantities: whatever does not read as a number is dropped.
NUMBERS = """
    SeriesNumber AcquisitionNumber InstanceNumber TemporalPositionIdentifier NumberOfTemporalPositions ImagesInAcquisition
    Rows Columns NumberOfFrames PixelSpacing ImagerPixelSpacing SliceThickness SpacingBetweenSlices SliceLocation
    ImagePositionPatient ImageOrientationPatient GantryDetectorTilt TableHeight ReconstructionDiameter
    DataCollectionDiameter ReconstructionFieldOfView ReconstructionPixelSpacing ReconstructionTargetCenterPatient
    DataCollectionCenterPatient
    SamplesPerPixel PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit RescaleIntercept RescaleSlope WindowCenter WindowWidth LossyImageCompressionRatio
    RealWorldValueFirstValueMapped RealWorldValueLastValueMapped RealWorldValueIntercept RealWorldValueSlope
    KVP XRayTubeCurrent XRayTubeCurrentInuA XRayTubeCurrentInmA ExposureTime ExposureTimeInuS ExposureTimeInms
    Exposure ExposureInuAs ExposureInmAs GeneratorPower FocalSpots RevolutionTime SpiralPitchFactor TableSpeed
    TableFeedPerRotation SingleCollimationWidth TotalCollimationWidth CTDIvol WaterEquivalentDiameter
    EstimatedDoseSaving NominalPercentageOfCardiacPhase DistanceSourceToDetector DistanceSourceToDataCollectionCenter
    MagneticFieldStrength ImagingFrequency TransmitterFrequency EchoTime EffectiveEchoTime EchoNumbers RepetitionTime
    InversionTime InversionTimes FlipAngle EchoTrainLength RFEchoTrainLength GradientEchoTrainLength NumberOfAverages
    PixelBandwidth NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView AcquisitionMatrix
    MRAcquisitionPhaseEncodingStepsInPlane MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsOutOfPlane
    ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane AcquisitionDuration DiffusionBValue
    DiffusionGradientOrientation TriggerTime SAR dBdt
    FrameAcquisitionNumber TemporalPositionIndex InStackPositionNumber DimensionIndexValues DimensionIndexPointer
    FunctionalGroupPointer InConcatenationNumber InConcatenationTotalNumber ConcatenationFrameOffsetNumber
    HorizontalFieldOfView DegreeOfDilation IlluminationPower IlluminationWaveLength EmmetropicMagnification
"""

# Code strings and texts that a person may have typed into: kept where every word is one of WORDS.
WORDED = """
    ImageType FrameType Modality BodyPartExamined PatientPosition Laterality ImageLaterality FrameLaterality
    PhotometricInterpretation BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression
    LossyImageCompressionMethod RescaleType ConversionType PresentationLUTShape PixelSpacingCalibrationType
    VolumetricProperties VolumeBasedCalculationTechnique PixelPresentation ComplexImageComponent AcquisitionContrast
    AcquisitionType ExposureModulationType ScanOptions FilterType FilterMaterial ConvolutionKernel
    ConvolutionKernelGroup ReconstructionAlgorithm MultienergyCTAcquisition
    ScanningSequence SequenceVariant SequenceName PulseSequenceName MRAcquisitionType ImagedNucleus ResonantNucleus
    ReceiveCoilName ReceiveCoilType TransmitCoilName InPlanePhaseEncodingDirection InversionRecovery PartialFourier
    ParallelAcquisition EchoPulseSequence DiffusionDirectionality QualityControlSubject ContentQualification
    DimensionOrganizationType PupilDilated PatientSex
"""

# What the maker of the device writes: short, of plain characters, and no echo of a name or identifier.
DEVICE = "Manufacturer ManufacturerModelName SoftwareVersions"

# Replaced one to one, so that what belonged together still does.
UIDS = """
    SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID IrradiationEventUID ConcatenationUID
    SOPInstanceUIDOfConcatenationSource DimensionOrganizationUID SynchronizationFrameOfReferenceUID
"""

# A coded term: kept where its code is in pydicom's dictionary of DCM, SCT and UCUM, with the meaning that stands there.
CODED = """
    AnatomicRegionSequence CTDIPhantomTypeCodeSequence AcquisitionDeviceTypeCodeSequence IlluminationTypeCodeSequence
    LightPathFilterTypeStackCodeSequence ImagePathFilterTypeStackCodeSequence MeasurementUnitsCodeSequence
    WideFieldOphthalmicPhotographyQualityRatingSequence WaterEquivalentDiameterCalculationMethodCodeSequence
"""

# Sequences whose items are treated by this same table.
SEQUENCES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionOrganizationSequence DimensionIndexSequence
    FrameContentSequence PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence FrameAnatomySequence
    FrameVOILUTSequence PixelValueTransformationSequence RealWorldValueMappingSequence
    UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
    IrradiationEventIdentificationSequence
    CTImageFrameTypeSequence CTExposureSequence CTAcquisitionTypeSequence CTAcquisitionDetailsSequence
    CTTableDynamicsSequence CTXRayDetailsSequence CTReconstructionSequence CTGeometrySequence CTPositionSequence
    CTAdditionalXRaySourceSequence MultienergyCTAcquisitionSequence
    MRImageFrameTypeSequence MREchoSequence MRTimingAndRelatedParametersSequence MRModifierSequence MRAveragesSequence
    MRImagingModifierSequence MRReceiveCoilSequence MRTransmitCoilSequence MRFOVGeometrySequence MRDiffusionSequence
    DiffusionGradientDirectionSequence
"""

# Type 2 in the Patient, Study and Equipment modules (PS3.3 C.7): empty where nothing of them is kept.
EMPTY = """
    PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName Manufacturer
"""

# Words that stand in kept texts; one or two letters, and digits, need no entry.
WORDS = frozenset(
    """
    original primary derived secondary axial coronal sagittal oblique localizer scout topogram other mixed none yes no
    volume distorted sampled uniform monochrome color colour mono rgb full partial ybr ict rct palette identity inverse
    hfs hfp ffs ffp hfdr hfdl ffdr ffdl hu us unspecified normal not research product service iso jpeg jls
    som spi seq spiral helical helix helic mode sequenced cine constant angle stationary free option options head body
    standard soft detail lung bone boneplus plus edge chest ultra smooth sharp medium very brain abdomen large bony
    algorithm filter wedge flat butterfly strip wedges bowtie bowtied multiple tin aluminum copper silver molybdenum
    stnd std xsharp hires tissue mediastinum mediast liver angio vascular cardiac heart coronary sinus temporal fbp asir
    asirv idose imr iris safire admire aidr aice first dlir veo mbir truefidelity qr hr br bl ur bf hf tf uf
    dose modulation manual fixed filtered back proj iterative projection auto caredose exposure automatic
    mfsplit norm dis shm mfs fil mip mpr average diffusion adc trace tracew phase magnitude real imaginary map mag
    diffusionadc perfusion flow encoded stress rest proton density metabolite water fat ip op dixon fluid attenuated
    stir tagging tof star unknown ffe fse tse tfe tfl tir tirm se gr gre ir ep rm spgr spoiled sk mtc ss trss sp mp osp
    ep epi epse epfid fid fid dti dwi swi mprage spc space cube vibe lava vista thrive haste blade propeller flash fisp
    trufi trufisp fiesta efgre fgre frfse frfs flair memp gems gemsm edr fast ssfse spair spir fatsat sat fc pfp nex
    acc asset grappa sense caipi pat square zip fr tailored swan bravo vibrant fspgr dual triple mpgr irfse
    tra cor sag row column hydrogen linear circular quadrature quad phased array multicoil coil surface volumetric
    body spine neck torso breast knee shoulder wrist ankle foot hand flex extremity cardio peripheral large small matrix
    hea hep hns hnu ctl spl bod bcl anterior posterior upper lower superior inferior left right bilateral unpaired both
    channel rx tx rf combined integrated surface tim dstream birdcage mammo hrbrain hrwrist nvarray nvhead
    abdomenpelvis chestabdomen chestabdpelvis headneck cspine tspine lspine sspine cervical thoracic lumbar sacral pelvis
    hip thigh calf leg arm elbow forearm femur tibia fibula humerus orbit orbits face skull iac pituitary ear eye eyes
    retina thorax thorx throat prostate uterus bladder kidney pancreas spleen whole wholebody wb trunk limb limbs toe
    clavicle scapula sternum rib ribs ribcage jaw mandible maxilla tmj carotid aorta aortic vessels vessel pulmonary arm
    isotropic trace directional bmatrix tiled sparse tile multi pff npw graph dfgre partialbody partial efgr tfi ssepi
    """.split()
)  # fmt: skip
