"""Both training stages of MedIQA. This release holds the node only; see the CHANGELOG."""
