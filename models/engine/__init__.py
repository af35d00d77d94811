"""One step on one pipeline. A `Step` and what went into it come in; a picture or latents, with what it took, go out."""
