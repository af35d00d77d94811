"""How good each recipe would be. A `PromptView` and recipes come in; a mean, an uncertainty and their basis (learned,
composed, prior) go out for each. A ridge on embeddings and words under a calibration, with what feedback added on
top.
"""
