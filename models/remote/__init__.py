"""Models that another server draws with, by OpenAI's images API. A step comes in; a picture goes out, or why not."""
