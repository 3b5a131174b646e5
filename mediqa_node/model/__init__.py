"""The network of MedIQA and the weights it runs with: the only room that knows torch and timm."""
