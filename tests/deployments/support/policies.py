"""Policy files for the tests: the shipped presets, and `lab`, whose recipes each show one way to make a picture."""

from pathlib import Path

from policies import PRESETS

LAB = """
version: 1
name: lab
recipes:
  one:      {generate: {model: sd15, steps: 3}}
  latents:  {chain: [{generate: {model: sdxl, steps: 5, until: 0.6}}, {refine: {model: sdxl-refiner, from: 0.6}}]}
  pixels:   {chain: [{generate: {model: flux, steps: 3}}, {refine: {model: sdxl-refiner, steps: 4, strength: 0.5}}]}
  best:     {fuse: {with: best_of, scorer: alignment, of: [one, pixels]}}
  aside:    {fuse: {with: best_of, scorer: alignment, of: [{generate: {model: sd15}}, {generate: {model: flux}}]}}
  blended:  {fuse: {with: frequency, low: one, high: latents}}
  bigger:   {chain: [one, {upscale: {factor: 2}}]}
  relay:    {chain: [{generate: {model: sdxl, until: 0.3}}, {refine: {model: sdxl-refiner, from: 0.3, until: 0.6}},
                     {refine: {model: sdxl, from: 0.6}}]}
  tiled:    {chain: [one, {upscale: {factor: 2}}, {refine: {model: sd15, strength: 0.5, tile: native, overlap: 0.5}}]}
  mixed:    {fuse: {with: pyramid, of: [one, pixels], weights: mask, harmonise: {model: sdxl-refiner, strength: 0.25}}}
  objects:  {fuse: {with: regions, of: [one, pixels], scorer: alignment}}
  together: {fuse: {with: denoise, of: [{generate: {model: sdxl}}, {generate: {model: sdxl-turbo}}], weights: [2, 1]}}
  lost:     {generate: {model: broken}}
objective: {minimise: latency_s}
"""

QUALITY = """
version: 1
name: quality
recipes:
  draft:   {generate: {model: sd15, steps: 12, scheduler: dpmsolver++}}
  premium: {chain: [{generate: {model: flux}}, {refine: {model: sdxl-refiner, strength: 0.25}}]}
objective: {maximise: quality}
"""

SWITCH = """
version: 1
name: switch
recipes:
  first:  {{generate: {{model: sd15, steps: 2}}}}
  second: {{generate: {{model: sd15, steps: 3}}}}
objective: {{minimise: latency_s}}
rules:
  - {{name: the switch, when: {{prompt_matches: "."}}, only: [{only}]}}
"""


def write_policies(folder: Path) -> Path:
    """The folder, with all these policies in it. By `quality` no measured second has a say in what is decided."""
    for preset in sorted(PRESETS.glob("*.yaml")):
        worn = preset.read_text(encoding="utf-8").replace(", style: {lcm: 1}", "")  # it is for the shipped weights
        (folder / preset.name).write_text(worn, encoding="utf-8")
    (folder / "lab.yaml").write_text(LAB)
    (folder / "quality.yaml").write_text(QUALITY)
    (folder / "switch.yaml").write_text(SWITCH.format(only="first"))
    return folder
