"""Random inputs of every kind: each ends in a result or in one clear line.

``python -m tests.fuzz --cases 1000000`` tries that many; ``test_fuzz.py`` tries a few hundred, and 20,000 as a slow
test. What was found once is in each kind's `Kind.found`, and is tried by every run of the tests.
"""
