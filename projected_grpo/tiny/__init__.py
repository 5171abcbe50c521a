"""What the tiny testbeds have in common: whole-word vocabularies, models of 85 thousand parameters, warm-ups and their
files, batches of questions, and scores.

`projected_grpo.testbed` writes programs, `projected_grpo.arithmetic` chains of equalities.
"""
