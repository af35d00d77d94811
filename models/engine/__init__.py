"""One step on one model. A `Step` and what went into it come in; a picture, latents or scores go out, with facts."""
