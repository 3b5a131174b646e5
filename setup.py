"""Add the folder `config` to the distribution as the package `mediqa_config`; everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["mediqa_node*", "training*"]), "mediqa_config"])
