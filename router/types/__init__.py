"""The values that flow through Triptych, in the order of the flow. All frozen; change one with `dataclasses.replace`.

request, context -> prompt view -> recipe -> plan -> estimate -> decision -> route -> step results

Everything here is plain data (builtins and numpy), so that it may cross a process border inside one application.
Units stand in the names: `_s` seconds, `_usd` US dollars, `_gb` 10^9 bytes; sizes are pixels.

Import them from here: the modules below are how they are kept, not a second way to them.
"""

from router.types.cards import Catalogue, Licence, ModelCard, Remote, Scalar
from router.types.decisions import (
    Decision,
    Estimate,
    Offers,
    Policy,
    Provenance,
    Quality,
    Ranked,
    Rejection,
    Verification,
)
from router.types.given import GivenPicture, Role
from router.types.plans import HandOver, Plan, Step, StepKind, Unless
from router.types.recipes import (
    Chain,
    Control,
    Edit,
    Fuse,
    Generate,
    Given,
    Map,
    Prices,
    Recipe,
    Refine,
    Search,
    Tile,
    Turn,
    Upscale,
)
from router.types.requests import NO_CONTEXT, Allowance, Context, GenerationRequest, Priority, PromptView
from router.types.resources import UNBOUNDED, Resources
from router.types.results import Latents, Mask, Picture, Progress, Scores, StepResult, StepTrace, Value
from router.types.styles import MAX_STYLES, Style, Wearing, spelled, wearing, worn_by

__all__ = [
    "MAX_STYLES",
    "NO_CONTEXT",
    "UNBOUNDED",
    "Allowance",
    "Catalogue",
    "Chain",
    "Context",
    "Control",
    "Decision",
    "Edit",
    "Estimate",
    "Fuse",
    "Generate",
    "GenerationRequest",
    "Given",
    "GivenPicture",
    "HandOver",
    "Latents",
    "Licence",
    "Map",
    "Mask",
    "ModelCard",
    "Offers",
    "Picture",
    "Plan",
    "Policy",
    "Prices",
    "Priority",
    "Progress",
    "PromptView",
    "Provenance",
    "Quality",
    "Ranked",
    "Recipe",
    "Refine",
    "Rejection",
    "Remote",
    "Resources",
    "Role",
    "Scalar",
    "Scores",
    "Search",
    "Step",
    "StepKind",
    "StepResult",
    "StepTrace",
    "Style",
    "Tile",
    "Turn",
    "Unless",
    "Upscale",
    "Value",
    "Verification",
    "Wearing",
    "spelled",
    "wearing",
    "worn_by",
]
