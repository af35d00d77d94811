"""Pictures in, not only prompts: OpenAI's edits and variations, and how their forms are read."""
