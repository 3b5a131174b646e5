"""What may leave with a de-identified image, as data: every attribute that is not named here is dropped.

By DICOM keyword, root and sequence items alike. `deidentify` gives each kind its meaning; that of Basic Profile
attributes (PS3.15 table E.1-1) none is kept but sex and a coarse age is held by a test.
"""

# Quantities: whatever does not read as a number is dropped.
NUMBERS = """
    SeriesNumber AcquisitionNumber InstanceNumber TemporalPositionIdentifier NumberOfTemporalPositions
    ImagesInAcquisition Rows Columns NumberOfFrames PixelSpacing ImagerPixelSpacing SliceThickness
    SpacingBetweenSlices SliceLocation ImagePositionPatient ImageOrientationPatient GantryDetectorTilt TableHeight
    ReconstructionDiameter DataCollectionDiameter ReconstructionFieldOfView ReconstructionPixelSpacing
    ReconstructionTargetCenterPatient DataCollectionCenterPatient SamplesPerPixel PlanarConfiguration BitsAllocated
    BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleIntercept RescaleSlope
    WindowCenter WindowWidth LossyImageCompressionRatio RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
    RealWorldValueIntercept RealWorldValueSlope KVP XRayTubeCurrent XRayTubeCurrentInuA XRayTubeCurrentInmA
    ExposureTime ExposureTimeInuS ExposureTimeInms Exposure ExposureInuAs ExposureInmAs GeneratorPower FocalSpots
    RevolutionTime SpiralPitchFactor TableSpeed TableFeedPerRotation SingleCollimationWidth TotalCollimationWidth
    CTDIvol WaterEquivalentDiameter EstimatedDoseSaving NominalPercentageOfCardiacPhase DistanceSourceToDetector
    DistanceSourceToDataCollectionCenter MagneticFieldStrength ImagingFrequency TransmitterFrequency EchoTime
    EffectiveEchoTime EchoNumbers RepetitionTime InversionTime InversionTimes FlipAngle EchoTrainLength
    RFEchoTrainLength GradientEchoTrainLength NumberOfAverages PixelBandwidth NumberOfPhaseEncodingSteps
    PercentSampling PercentPhaseFieldOfView AcquisitionMatrix MRAcquisitionPhaseEncodingStepsInPlane
    MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsOutOfPlane ParallelReductionFactorInPlane
    ParallelReductionFactorOutOfPlane AcquisitionDuration DiffusionBValue DiffusionGradientOrientation TriggerTime
    SAR dBdt FrameAcquisitionNumber TemporalPositionIndex InStackPositionNumber DimensionIndexValues
    DimensionIndexPointer FunctionalGroupPointer InConcatenationNumber InConcatenationTotalNumber
    ConcatenationFrameOffsetNumber HorizontalFieldOfView DegreeOfDilation IlluminationPower IlluminationWaveLength
    EmmetropicMagnification
"""

# Code strings and texts that a person may have typed into: kept where every word is one of WORDS.
WORDED = """
    ImageType FrameType Modality BodyPartExamined PatientPosition Laterality ImageLaterality FrameLaterality
    PhotometricInterpretation BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression
    LossyImageCompressionMethod RescaleType ConversionType PresentationLUTShape PixelSpacingCalibrationType
    VolumetricProperties VolumeBasedCalculationTechnique PixelPresentation ComplexImageComponent AcquisitionContrast
    AcquisitionType ExposureModulationType ScanOptions FilterType FilterMaterial ConvolutionKernel
    ConvolutionKernelGroup ReconstructionAlgorithm MultienergyCTAcquisition ScanningSequence SequenceVariant
    SequenceName PulseSequenceName MRAcquisitionType ImagedNucleus ResonantNucleus ReceiveCoilName ReceiveCoilType
    TransmitCoilName InPlanePhaseEncodingDirection InversionRecovery PartialFourier ParallelAcquisition
    EchoPulseSequence DiffusionDirectionality QualityControlSubject ContentQualification DimensionOrganizationType
    PupilDilated PatientSex
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
    AnatomicRegionSequence CTDIPhantomTypeCodeSequence AcquisitionDeviceTypeCodeSequence
    IlluminationTypeCodeSequence LightPathFilterTypeStackCodeSequence ImagePathFilterTypeStackCodeSequence
    MeasurementUnitsCodeSequence WideFieldOphthalmicPhotographyQualityRatingSequence
    WaterEquivalentDiameterCalculationMethodCodeSequence
"""

# Sequences whose items are treated by this same table.
SEQUENCES = """
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionOrganizationSequence
    DimensionIndexSequence FrameContentSequence PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence
    FrameAnatomySequence FrameVOILUTSequence PixelValueTransformationSequence RealWorldValueMappingSequence
    UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
    IrradiationEventIdentificationSequence CTImageFrameTypeSequence CTExposureSequence CTAcquisitionTypeSequence
    CTAcquisitionDetailsSequence CTTableDynamicsSequence CTXRayDetailsSequence CTReconstructionSequence
    CTGeometrySequence CTPositionSequence CTAdditionalXRaySourceSequence MultienergyCTAcquisitionSequence
    MRImageFrameTypeSequence MREchoSequence MRTimingAndRelatedParametersSequence MRModifierSequence
    MRAveragesSequence MRImagingModifierSequence MRReceiveCoilSequence MRTransmitCoilSequence MRFOVGeometrySequence
    MRDiffusionSequence DiffusionGradientDirectionSequence
"""

# Type 1 in multi-frame objects alone (PS3.3 C.7.6.16, C.7.5.2): a value that says nothing.
DUMMIES = {"ContentDate": "19000101", "ContentTime": "000000", "DeviceSerialNumber": "REMOVED"}

# Type 2 in the modules Patient, Study, Equipment and Frame of Reference (PS3.3 C.7): empty where nothing is kept.
EMPTY = """
    PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName Manufacturer
    PositionReferenceIndicator
"""

# Words that stand in kept texts; one or two letters, and digits, need no entry.
WORDS = """
    abdomen abdomenpelvis acc adc admire aice aidr algorithm aluminum angio angle ankle anterior aorta aortic arm
    array asir asirv asset attenuated auto automatic average axial back bcl bilateral birdcage bladder blade bmatrix
    bod body bone boneplus bony both bowtie bowtied brain bravo breast butterfly caipi calf cardiac cardio caredose
    carotid cervical channel chest chestabdomen chestabdpelvis cine circular clavicle coil color colour column
    combined constant copper cor coronal coronary cspine ctl cube density derived detail dfgre diffusion
    diffusionadc directional dis distorted dixon dlir dose dstream dti dual dwi ear edge edr efgr efgre elbow
    encoded epfid epi epse exposure extremity eye eyes face fast fat fatsat fbp femur ffdl ffdr ffe ffp ffs fgre
    fibula fid fiesta fil filter filtered first fisp fixed flair flash flat flex flow fluid foot forearm free frfs
    frfse fse fspgr full gems gemsm graph grappa gre hand haste hea head headneck heart helic helical helix hep hfdl
    hfdr hfp hfs hip hires hns hnu hrbrain hrwrist humerus hydrogen iac ict identity idose imaginary imr inferior
    integrated inverse irfse iris iso isotropic iterative jaw jls jpeg kidney knee large lava left leg limb limbs
    linear liver localizer lower lspine lumbar lung mag magnitude mammo mandible manual map matrix maxilla mbir
    mediast mediastinum medium memp metabolite mfs mfsplit mip mixed mode modulation molybdenum mono monochrome mpgr
    mpr mprage mtc multi multicoil multiple neck nex none norm normal not npw nvarray nvhead oblique option options
    orbit orbits original osp other palette pancreas partial partialbody pat pelvis perfusion peripheral pff pfp
    phase phased pituitary plus posterior primary product proj projection propeller prostate proton pulmonary quad
    quadrature rct real research rest retina rgb rib ribcage ribs right row sacral safire sag sagittal sampled sat
    scapula scout secondary sense seq sequenced service sharp shm shoulder silver sinus skull small smooth soft som
    space spair sparse spc spgr spi spine spir spiral spl spleen spoiled square ssepi ssfse sspine standard star
    stationary std sternum stir stnd stress strip superior surface swan swi tagging tailored temporal tfe tfi tfl
    thigh thoracic thorax thorx thrive throat tibia tile tiled tim tin tir tirm tissue tmj toe tof topogram torso
    tra trace tracew triple trss truefidelity trufi trufisp trunk tse tspine ultra uniform unknown unpaired
    unspecified upper uterus vascular veo very vessel vessels vibe vibrant vista volume volumetric water wedge
    wedges whole wholebody wrist xsharp ybr yes zip
"""
