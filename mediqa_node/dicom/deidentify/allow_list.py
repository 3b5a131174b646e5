"""The attributes that a de-identified image may keep; every attribute not listed here is dropped.

They are listed by DICOM keyword and apply at the top level and in sequence items; `deidentify` defines how each kind is
treated. A test checks that only sex and a coarse age are kept of the attributes of the Basic Profile (PS3.15 table
E.1-1).
"""

# Quantities: values that are not numbers are dropped.
NUMBERS = """
    SeriesNumber AcquisitionNumber InstanceNumber TemporalPositionIdentifier NumberOfTemporalPositions
    ImagesInAcquisition

    Rows Columns NumberOfFrames PixelSpacing ImagerPixelSpacing SliceThickness SpacingBetweenSlices
    SliceLocation ImagePositionPatient ImageOrientationPatient GantryDetectorTilt TableHeight
    ReconstructionDiameter DataCollectionDiameter ReconstructionFieldOfView ReconstructionPixelSpacing
    ReconstructionTargetCenterPatient DataCollectionCenterPatient

    SamplesPerPixel PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit RescaleIntercept RescaleSlope WindowCenter WindowWidth LossyImageCompressionRatio

    KVP XRayTubeCurrent XRayTubeCurrentInuA XRayTubeCurrentInmA ExposureTime ExposureTimeInuS ExposureTimeInms
    Exposure ExposureInuAs ExposureInmAs GeneratorPower FocalSpots RevolutionTime SpiralPitchFactor TableSpeed
    TableFeedPerRotation SingleCollimationWidth TotalCollimationWidth CTDIvol WaterEquivalentDiameter
    EstimatedDoseSaving NominalPercentageOfCardiacPhase DistanceSourceToDetector
    DistanceSourceToDataCollectionCenter

    MagneticFieldStrength ImagingFrequency TransmitterFrequency EchoTime EffectiveEchoTime EchoNumbers
    RepetitionTime InversionTime InversionTimes FlipAngle EchoTrainLength RFEchoTrainLength
    GradientEchoTrainLength NumberOfAverages PixelBandwidth NumberOfPhaseEncodingSteps PercentSampling
    PercentPhaseFieldOfView AcquisitionMatrix MRAcquisitionPhaseEncodingStepsInPlane
    MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsOutOfPlane ParallelReductionFactorInPlane
    ParallelReductionFactorOutOfPlane AcquisitionDuration DiffusionBValue DiffusionGradientOrientation
    TriggerTime SAR dBdt ParallelReductionFactorSecondInPlane NumberOfKSpaceTrajectories ChemicalShiftReference

    FrameAcquisitionNumber FrameAcquisitionDuration TemporalPositionIndex InStackPositionNumber
    DimensionIndexValues DimensionIndexPointer FunctionalGroupPointer InConcatenationNumber
    InConcatenationTotalNumber ConcatenationFrameOffsetNumber

    HorizontalFieldOfView DegreeOfDilation IlluminationPower IlluminationWaveLength EmmetropicMagnification
"""

# Code strings and texts that may have been typed by hand: kept if every word is one of WORDS.
WORDED = """
    ImageType FrameType Modality BodyPartExamined PatientPosition Laterality ImageLaterality FrameLaterality

    PhotometricInterpretation BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression
    LossyImageCompressionMethod RescaleType ConversionType PresentationLUTShape PixelSpacingCalibrationType

    VolumetricProperties VolumeBasedCalculationTechnique PixelPresentation ComplexImageComponent
    AcquisitionContrast

    AcquisitionType ExposureModulationType ScanOptions FilterType FilterMaterial ConvolutionKernel
    ConvolutionKernelGroup ReconstructionAlgorithm MultienergyCTAcquisition

    ScanningSequence SequenceVariant SequenceName PulseSequenceName MRAcquisitionType ImagedNucleus
    ResonantNucleus ReceiveCoilName ReceiveCoilType TransmitCoilName InPlanePhaseEncodingDirection
    InversionRecovery PartialFourier ParallelAcquisition EchoPulseSequence DiffusionDirectionality
    TimeOfFlightContrast Tagging T2Preparation SteadyStatePulseSequence SpectrallySelectedSuppression
    SpectrallySelectedExcitation SpatialPresaturation SegmentedKSpaceTraversal SaturationRecovery PhaseContrast
    ParallelAcquisitionTechnique OversamplingPhase MagnetizationTransfer FlowCompensation
    FlowCompensationDirection EchoPlanarPulseSequence MultipleSpinEcho MultiPlanarExcitation
    GeometryOfKSpaceTraversal RectilinearPhaseEncodeReordering KSpaceFiltering BloodSignalNulling Spoiling
    CoverageOfKSpace QuadratureReceiveCoil TransmitCoilType ReconstructionType

    QualityControlSubject ContentQualification DimensionOrganizationType StackID PupilDilated PatientSex
"""

# Values set by the manufacturer: short, of plain characters, and without a name or identifier.
DEVICE = "Manufacturer ManufacturerModelName SoftwareVersions"

# Manufacturers' words that also occur in names of hospitals and stations: they identify no place.
MAKERS = """
    canon center centre clinic clinical corporation electric electronics fujifilm general healthcare healthineers
    health hitachi hospital imaging medical nidek philips radiology shimadzu siemens systems topcon toshiba united
    zeiss
"""

# Replaced one to one, so that references stay consistent.
UIDS = """
    SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID IrradiationEventUID ConcatenationUID
    SOPInstanceUIDOfConcatenationSource DimensionOrganizationUID SynchronizationFrameOfReferenceUID
"""

# A coded term: kept if its code is in pydicom's dictionary of DCM, SCT and UCUM, with the meaning from there.
CODED = """
    AnatomicRegionSequence CTDIPhantomTypeCodeSequence AcquisitionDeviceTypeCodeSequence
    IlluminationTypeCodeSequence LightPathFilterTypeStackCodeSequence ImagePathFilterTypeStackCodeSequence
    WideFieldOphthalmicPhotographyQualityRatingSequence WaterEquivalentDiameterCalculationMethodCodeSequence
"""

# Sequences: their items are filtered by this same table.
SEQUENCES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionOrganizationSequence
    DimensionIndexSequence FrameContentSequence PixelMeasuresSequence PlanePositionSequence
    PlaneOrientationSequence FrameAnatomySequence FrameVOILUTSequence PixelValueTransformationSequence
    UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
    IrradiationEventIdentificationSequence

    CTImageFrameTypeSequence CTExposureSequence CTAcquisitionTypeSequence CTAcquisitionDetailsSequence
    CTTableDynamicsSequence CTXRayDetailsSequence CTReconstructionSequence CTGeometrySequence CTPositionSequence
    CTAdditionalXRaySourceSequence MultienergyCTAcquisitionSequence

    MRImageFrameTypeSequence MREchoSequence MRTimingAndRelatedParametersSequence MRModifierSequence
    MRAveragesSequence MRImagingModifierSequence MRReceiveCoilSequence MRTransmitCoilSequence
    MRFOVGeometrySequence MRDiffusionSequence DiffusionGradientDirectionSequence
"""

# Type 1 only in multi-frame objects (PS3.3 C.7.6.16, C.7.5.2): filled with a dummy value.
DUMMIES = {"ContentDate": "19000101", "ContentTime": "000000", "AcquisitionDateTime": "19000101",
           "DeviceSerialNumber": "REMOVED"}  # fmt: skip
FRAME_DUMMIES = {"FrameReferenceDateTime": "19000101", "FrameAcquisitionDateTime": "19000101"}

# Type 2 in the modules Patient, Study, Equipment and Frame of Reference (PS3.3 C.7): empty if nothing is kept.
EMPTY = """
    PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName Manufacturer
    PositionReferenceIndicator
"""

# Words allowed in kept texts; one or two letters, and digits, need no entry.
WORDS = """
    abdomen abdomenpelvis acc acceleration adc admire aice aidr algorithm aluminum and angio angle ankle anterior
    aorta aortic arm array asir asirv asset attenuated auto automatic average axial back bcl bilateral birdcage
    bladder blade bmatrix bod body bone boneplus bony both bowtie bowtied brain bravo breast butterfly caipi calf
    cardiac cardio caredose carotid centric cervical channel chest chestabdomen chestabdpelvis cine circular
    clavicle coil color colour column combined constant copper cor coronal coronary cosine cspine ctl cube density
    derived detail dfgre diffusion diffusionadc directional dis distorted dixon dlir dose dstream dti dual dwi ear
    echo edge edr efgr efgre elbow ellipsoid encoded epfid epi epse exposed exposure extremity eye eyes face fast
    fat fatsat fbp fda femur ffdl ffdr ffe ffp ffs fgre fibula fid fiesta fil filter filtered first fisp fixed flair
    flash flat flex flow fluid foot forearm free frequency frfs frfse fse fspgr full gauss gems gemsm gradient graph
    grappa gre grid hamming hand hanning haste hea head headneck heart helic helical helix hep hfdl hfdr hfp hfs hip
    hires hns hnu hrbrain hrwrist humerus hydrogen iac icrp ict identity idose iec imaginary imr inferior integrated
    interleaved inverse irfse iris iso isotropic iterative jaw jls jpeg kidney knee large lava left leg level limb
    limbs line linear liver local localizer longitudinal lower lspine lumbar lung mag magnitude mammo mandible
    manual map matrix maxilla mbir mediast mediastinum medium memp metabolite mfs mfsplit mhw mip mixed mode
    modulation molybdenum mono monochrome mpgr mpr mprage mtc multi multicoil multiple neck nex none norm normal not
    npw nvarray nvhead oblique off option options orbit orbits original osp other palette pancreas partial
    partialbody pat pelvis perfusion peripheral pff pfp phase phased pils pituitary plus posterior primary product
    proj projection propeller prostate proton pulmonary quad quadrature radial rct real rectilinear repeat research
    rest retina reverse reversed rgb rib ribcage ribs riesz right row sacral safire sag sagittal sampled sat scapula
    scout second secondary segmented selective sens sense seq sequenced service sharp shm shoulder silver single
    sinus skull slab small smooth soft som space spair sparse spc spgr spi spin spine spir spiral spl spleen spoiled
    square ssepi ssfse sspine standard star stationary std sternum stir stnd stress strip superior surface swan swi
    tagging tailored temporal tfe tfi tfl thigh thoracic thorax thorx three thrive throat tibia tile tiled tim time
    tin tir tirm tissue tmj toe tof topogram torso tra trace tracew transverse triple trss truefidelity trufi
    trufisp trunk tse tspine tukey two ultra uniform unknown unpaired unspecified upper uterus vascular velocity veo
    very vessel vessels vibe vibrant vista volume volumetric water wedge wedges weighted whole wholebody wrist
    xsharp ybr yes zip
"""
