"""What a policy file may not say. A specification and the models that are here come in; a `Policy` goes out, or every
contradiction, unreachable recipe and impossible chain in it.
"""
