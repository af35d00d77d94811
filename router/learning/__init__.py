"""From ratings and use to a better router. Tables of ratings, decisions and feedback come in; trained artefacts,
evaluations and estimates of what another policy would have earned go out.
"""
