"""DICOM over TCP: the Storage and Verification SCP, and the Storage SCU. The only package that imports pynetdicom."""
