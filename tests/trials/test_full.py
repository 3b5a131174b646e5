"""The trials that take minutes or need processes of their own."""

import pytest
from support.receiving import ct

pytestmark = pytest.mark.acceptance

MEGABYTE = 1024**2
UID = str(ct().SOPInstanceUID)
