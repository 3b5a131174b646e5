"""The MedIQA network and its weights: the only package of the node that imports torch and timm."""
