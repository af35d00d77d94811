"""How the embedded family is trained: captions and latents come in; folders of weights with their cards go out. The
command is `python -m models.embedded.train`; nothing that serves imports this.
"""
