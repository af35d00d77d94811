"""The same decisions without serving: rehearsals and probes of policies, the difference between two, replays of the
log and retraining.
"""
