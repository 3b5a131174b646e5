"""Measure the focus of a fundus photograph: how much of its structure is as fine as vessels.

Method: energy of the flattened green channel (`Photograph.flat`) between Gaussians with standard deviations of 0.2 %
and 0.5 % of the field's diameter (vessels of about 0.5 to 1.5 % of it, 60 to 200 um at 45 degrees), over the energy of
all structure finer than the background. Defocus weakens fine structure more than wide structure, so that the ratio
falls with blur (band-pass focus measures: Moscaritolo et al. 2009, doi 10.1109/TMI.2009.2019755), and gain and haze,
which weaken both alike, leave it as it is.

Assumptions: the retina has vessels, and the camera's field is the same in the photographs that are compared.
What breaks it: noise is fine structure, and makes defocused photographs look sharper: beyond a relative noise of 2 %
(robust estimate after Immerkaer 1996, doi 10.1006/cviu.1996.0060, at the common size) the focus is limited. JPEG
with few steps does the same by a tenth. Retinas with wide bright lesions have more wide structure and count as less
sharp; sharpening by the camera raises it.
"""

import numpy as np
from scipy import ndimage

from mediqa_node.image.measure.noise import immerkaer_response
from mediqa_node.image.measure.op.photograph import DIAMETER_PX, Photograph

FINE, WIDE = 0.002, 0.005
MOST_NOISE = 0.02
_PERCENTILE, _OF_A_NORMAL = 30, 0.3853
_GAIN = 1.5
"""Of the response to noise of unit standard deviation."""


def focus(photograph: Photograph) -> float:
    """Return the share of the energy that lies in the band of vessels."""
    flat = photograph.flat
    fine, wide = (ndimage.gaussian_filter(flat, share * DIAMETER_PX, truncate=3.0) for share in (FINE, WIDE))
    inside = photograph.inside
    if not inside.any():
        return 0.0
    band = float(((fine - wide)[inside] ** 2).mean())
    whole = float((flat[inside] ** 2).mean())
    return band / whole if whole > 0 else 0.0


def relative_noise(photograph: Photograph) -> float:
    """Return the standard deviation of the noise over the background, at the common size."""
    response = np.abs(immerkaer_response(photograph.flat))[photograph.inside]
    return float(np.percentile(response, _PERCENTILE)) / (_OF_A_NORMAL * _GAIN)
