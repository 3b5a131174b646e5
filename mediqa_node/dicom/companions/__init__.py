"""Secondary Capture and Parametric Map objects that go with a report."""
