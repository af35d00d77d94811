"""Entries of the leaderboard, a file each: `NAME`, `ABOUT`, and `learn(table)`, `carry(tasks, pair)` or both."""
