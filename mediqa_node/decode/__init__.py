"""Decode frames of DICOM files: native ones in this process, compressed ones in a disposable child process."""
