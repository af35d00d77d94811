"""A plan as a Mermaid flow chart, for documents and for a quick look."""

from __future__ import annotations

from router.types import Plan, Step

SHAPES = {"image": ("[", "]"), "latents": ("[/", "/]"), "scores": ("([", "])")}


def mermaid(plan: Plan) -> str:
    """`flowchart LR`: boxes are steps by what they give (pictures, slanted latents, round scores), arrows carry it.

    A dotted arrow says that the step is left out if the score is high enough.
    """
    names = {step.id: f"s{number}" for number, step in enumerate(plan.steps, start=1)}
    lines = ["flowchart LR"]
    for step in plan.steps:
        opening, closing = SHAPES[step.produces]
        lines.append(f'    {names[step.id]}{opening}"{_label(step)}"{closing}')
    kinds = {step.id: step.produces for step in plan.steps}
    for step in plan.steps:
        lines += [f"    {names[name]} -->|{kinds[name]}| {names[step.id]}" for name in step.inputs]
        if step.unless is not None:
            lines.append(f"    {names[step.unless.score]} -.->|below {step.unless.at_least:g}| {names[step.id]}")
    lines.append(f'    {names[plan.output]} --> answer(("{plan.width}x{plan.height}"))')
    lines += [f"    %% {note}" for note in plan.notes]
    return "\n".join(lines) + "\n"


def _label(step: Step) -> str:
    told = {key: step.settings[key] for key in ("steps", "until", "from", "strength", "factor") if key in step.settings}
    settings = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in told.items()
    )
    head = f"{step.kind} {' + '.join(step.models) or step.settings.get('method') or ''}".strip()
    return f"{head}<br/>{settings}" if settings else head
