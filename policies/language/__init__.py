"""The language of policy files. YAML text comes in; a validated specification goes out in which every value knows its
line, or problems that name file, line, key and the nearest name.
"""
